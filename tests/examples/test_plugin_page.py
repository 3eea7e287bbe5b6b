"""The code in docs/plugins.md works as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ckpt_rules import verify
from ckpt_rules.opening import checkpoint_at
from ckpt_rules.testing import CheckpointDir, Tensor, run_rule
from ckpt_rules_training.optimizer_steps import StepDrift
from ckpt_rules_training.progress_counters import CountersDisagree

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()


@pytest.fixture(scope="module")
def blocks() -> dict[str, str]:
    """Each block of Python by the first class or function that it defines."""
    found = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return {re.search(r"^(?:class|def) (\w+)", code, re.MULTILINE)[1]: code for code in found}


def defined(code: str) -> dict:
    names = {"__name__": "docs"}
    exec(code, names)
    return names


def test_the_layout_lets_built_in_rules_work_on_its_checkpoints(blocks, tmp_path):
    layout = defined(blocks["OurTrainer"])["OurTrainer"]()
    build = defined(blocks["our_checkpoint"])["our_checkpoint"]
    clean = run_rule(StepDrift(), build(tmp_path / "run"), layouts=[layout])
    clean.assert_passed()
    assert clean.report.layout.name == "ours"
    drifted = build(tmp_path / "drifted").set_key("ours.pt", "n", 520)
    run_rule(StepDrift(), drifted, layouts=[layout]).assert_one(path="ours.pt", message="520", severity="error")


def test_a_damaged_state_of_that_layout_keeps_the_run_from_a_pass(blocks, tmp_path):
    layout = defined(blocks["OurTrainer"])["OurTrainer"]()
    cut = defined(blocks["our_checkpoint"])["our_checkpoint"](tmp_path / "run").truncate("ours.pt", keep=0.5)
    result = run_rule(StepDrift(), cut, layouts=[layout])
    result.assert_skipped("ours.pt", blocked_by="ours.pt")
    assert not result.report.passed


def test_the_reporter_and_the_observer(blocks, make_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = defined(blocks["one_line"])
    report = verify(make_checkpoint())
    names["ckpt_rules_run_finished"](report)
    assert (tmp_path / "verified.log").read_text() == f"passed\t0\t{report.checkpoint}\n"
    assert list(names["ckpt_rules_reporters"]()) == ["ours-tsv"]


def test_the_tests_of_the_first_rule_pass(blocks, make_checkpoint, monkeypatch):
    import sys
    from types import ModuleType

    rules = ModuleType("ckpt_rules_ours.rules")
    monkeypatch.setitem(sys.modules, "ckpt_rules_ours", ModuleType("ckpt_rules_ours"))
    monkeypatch.setitem(sys.modules, "ckpt_rules_ours.rules", rules)
    exec(blocks["TooSmall"], vars(rules))
    tests = defined(blocks["test_a_small_model_is_too_small"])
    tests["test_a_small_model_is_too_small"](make_checkpoint, run_rule)
    tests["test_absent_weights_are_no_business_of_ours"](make_checkpoint, run_rule)


def test_every_keyword_and_method_of_the_kit_is_on_the_page():
    import inspect

    from ckpt_rules.testing import CheckpointDir, RuleResult, build_plain_torch

    keywords = set(inspect.signature(build_plain_torch).parameters) - {"path"}
    methods = {n for kit in (CheckpointDir, RuleResult) for n in vars(kit) if not n.startswith("_")}
    attributes = {"path", "with_torch", "outcome", "explanation"}
    assert {
        name for name in keywords | (methods - attributes) if f"`{name}" not in PAGE and f".{name}" not in PAGE
    } == set()


def test_the_layout_of_one_dictionary(blocks, tmp_path):
    layout = defined(blocks["Tiny"])["Tiny"]()
    weight = Tensor.random((4, 8))
    moments = {"step": Tensor.full((), 20), "exp_avg": weight, "exp_avg_sq": Tensor.full((4, 8), 1e-6)}
    group = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, "params": [0]}
    optimizer = {"state": {0: moments}, "param_groups": [group]}
    whole = {"net": {"w": weight}, "opt": optimizer, "it": 20, "tiny_version": 1, "options": {"steps": 40}}

    def saved(name: str, **changes: object) -> CheckpointDir:
        return CheckpointDir(tmp_path / name).write_torch("tiny-000020.pt", {**whole, **changes})

    clean = run_rule(StepDrift(), saved("clean"), layouts=[layout])
    clean.assert_passed()
    assert (clean.report.layout.name, clean.report.layout.signs[0]) == ("tiny", "'net' in tiny-000020.pt")
    run_rule(StepDrift(), saved("drifted", it=520), layouts=[layout]).assert_one(path="tiny-000020.pt", message="520")
    run_rule(CountersDisagree(), saved("renamed", it=30), layouts=[layout]).assert_one(key="it", message="name says 20")
    run_rule(StepDrift(), saved("odd", it=-1), layouts=[layout]).assert_skipped("it in tiny-000020.pt is not valid")
    checkpoint = checkpoint_at(saved("plan"), [layout])
    assert checkpoint.progress.plan.sentence == "training continues at update 21 of 40"
    cut = checkpoint_at(saved("cut").truncate("tiny-000020.pt", keep=0.5), [layout])
    assert (cut.layout.name, cut.match.signs) == ("tiny", ("tiny-000020.pt",))
