"""What a type checker knows of a fact that is asked for: the class of its answer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
ASKED = """
from ckpt_rules import OPTIMIZERS, WEIGHTS, Checkpoint, Fact

class Tokenizer: ...

TOKENIZER = Fact("tokenizer", Tokenizer, "the tokenizer")

def count(checkpoint: Checkpoint, least: int) -> int:
    return least

def check(checkpoint: Checkpoint) -> None:
    reveal_type(checkpoint[WEIGHTS])
    reveal_type(checkpoint.weights)
    reveal_type(checkpoint[OPTIMIZERS])
    reveal_type(checkpoint[TOKENIZER])
    reveal_type(checkpoint.fact(count, 3))
"""


@pytest.mark.slow
def test_the_class_of_each_answer(tmp_path):
    (tmp_path / "ours.py").write_text(ASKED)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "ours.py"]
    paths = {"MYPYPATH": f"{REPO}:{REPO / 'plugins'}", "PATH": ""}
    said = subprocess.run(command, cwd=tmp_path, env=paths, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    assert [re.sub(r"[\w.]+\.(?=\w)", "", t) for t in re.findall(r'Revealed type is "(.*)"', said.stdout)] == [
        "Weights",
        "Weights",
        "tuple[OptimizerState, ...]",
        "Tokenizer",
        "int",
    ]
