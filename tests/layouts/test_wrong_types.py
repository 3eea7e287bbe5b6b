"""Values of the wrong kind, anywhere in what real trainers wrote: no layout and no rule crashes over them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from ckpt_rules import UsageError, inspect, verify

STRANGE = (None, True, -1, 2**70, float("nan"), "x", [], [None], {}, {"a": {}}, (1,), b"\0")
SAMPLES = {
    "trainer": ("trainer/train.py", "plain", "run/checkpoint-8"),
    "adapter": ("trainer/train.py", "lora", "run/checkpoint-8"),
    "lightning": ("lightning/train.py", "plain", "checkpoints/last.ckpt"),
    "accelerate": ("accelerate/train.py", "counted", "mid"),
    "diffusers": ("accelerate/diffuse.py", "run/checkpoint-3"),
    "distributed": ("dcp/train.py", "fsdp2", "step-2"),
}
FIXTURES = {
    "zero2": "deepspeed/fixtures/zero2/global_step4",
    "zero3": "deepspeed/fixtures/zero3/global_step4",
    "pipeline": "deepspeed/fixtures/pipeline/global_step4",
    "lightning-sharded": "lightning/fixtures/fsdp/epoch=1-step=8.ckpt",
    "orbax": "jax/fixtures/orbax/2",
    "mmengine": "one_file/fixtures/mmengine/epoch_2.pth",
    "detectron2": "one_file/fixtures/detectron2/model_0000005.pth",
}
_MOST_FILES, _MOST_KEYS = 4, 12

pytestmark = pytest.mark.slow


def changed(value, depth=0):
    """Copies of a nested value with one entry changed to something strange; each entry meets a few of them."""
    if isinstance(value, dict) and depth < 3:
        for number, key in enumerate(list(value)[:_MOST_KEYS]):
            for strange in STRANGE[(number + depth) % 3 :: 3]:
                yield {**value, key: strange}
            for inner in list(changed(value[key], depth + 1))[:_MOST_KEYS]:
                yield {**value, key: inner}
    elif isinstance(value, list) and value and depth < 3:
        yield from ([strange, *value[1:]] for strange in STRANGE[depth::4])
        yield from ([inner, *value[1:]] for inner in list(changed(value[0], depth + 1))[:_MOST_KEYS])


def variants(path: Path):
    """Writes strange contents to a file, one after the other."""
    if path.suffix == ".json":
        for value in changed(json.loads(path.read_text())):
            path.write_text(json.dumps(value, default=str))
            yield
    else:
        try:
            whole = torch.load(path, weights_only=False)
        except Exception:  # noqa: BLE001 - whatever another library's file needs
            return
        for value in (*changed(whole), *STRANGE):
            torch.save(value, path)
            yield


def crashes(path: Path):
    report = verify(path)
    found = [f"{o.rule}: {o.crash.type}: {o.crash.message}" for o in report.outcomes if o.crash]
    found += [n.message for n in report.notices if n.fatal]
    try:
        return found + [n.message for n in inspect(path).notices if n.fatal]
    except UsageError:  # a file that no layout takes for a checkpoint any more
        return found


def every_change(checkpoint: Path):
    files = [checkpoint] if checkpoint.is_file() else [p for p in sorted(checkpoint.rglob("*")) if p.is_file()]
    wanted = [p for p in files if p.suffix in (".json", ".pt", ".pth", ".bin", ".pkl", ".ckpt")]
    for path in sorted(wanted, key=lambda p: p.stat().st_size)[: 2 * _MOST_FILES]:
        original = path.read_bytes()
        path.unlink()
        path.write_bytes(original)
        for _ in variants(path):
            yield path
        path.write_bytes(original)


@pytest.mark.parametrize("name", SAMPLES)
def test_what_libraries_wrote_here(copied, name):
    checkpoint = copied(*SAMPLES[name])
    count = 0
    for path in every_change(checkpoint):
        assert crashes(checkpoint) == [], path.name
        count += 1
    assert count > 100 or name == "distributed"


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures(tmp_path, name):
    source = Path(__file__).parent / FIXTURES[name]
    target = tmp_path / source.name
    shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
    for path in every_change(target):
        assert crashes(target) == [], path.name
