"""Values of the wrong kind, anywhere in what real trainers wrote: no layout and no rule crashes over them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from ckpt_rules import UsageError, inspect, verify
from tests.layouts.megatron.test_core import bridge
from tests.layouts.megatron.test_megatron import common, sharded
from tests.layouts.one_file.stand_in import StandIn

STRANGE = (None, True, -1, 2**70, float("nan"), "x", [], [None], {}, {"a": {}}, (1,), b"\0")
SAMPLES = {
    "trainer": ("trainer/train.py", "plain", "run/checkpoint-8"),
    "adapter": ("trainer/train.py", "lora", "run/checkpoint-8"),
    "lightning": ("lightning/train.py", "plain", "checkpoints/last.ckpt"),
    "accelerate": ("accelerate/train.py", "counted", "mid"),
    "diffusers": ("accelerate/diffuse.py", "run/checkpoint-3"),
    "distributed": ("dcp/train.py", "fsdp2", "step-2"),
    "pipeline": ("accelerate/diffuse.py", "pipeline"),
    "prompt": ("peft/make.py", "prompt"),
    "nanogpt": ("one_file/train_nanogpt.py", "at-6/ckpt.pt"),
}
FIXTURES = {
    "zero2": "deepspeed/fixtures/zero2/global_step4",
    "zero3": "deepspeed/fixtures/zero3/global_step4",
    "pipeline": "deepspeed/fixtures/pipeline/global_step4",
    "universal": "deepspeed/fixtures/universal/global_step4_universal",
    "experts": "deepspeed/fixtures/moe/global_step4",
    "sentences": "trainer/fixtures/sentences/checkpoint-8",
    "sentences by themselves": "trainer/fixtures/sentences/model",
    "lightning-sharded": "lightning/fixtures/fsdp/epoch=1-step=8.ckpt",
    "orbax": "jax/fixtures/orbax/2",
    "orbax-items": "jax/fixtures/items/3",
    "zarr": "jax/fixtures/zarr/4",
    "mmengine": "one_file/fixtures/mmengine/epochs/epoch_2.pth",
    "detectron2": "one_file/fixtures/detectron2/plain/model_0000005.pth",
    "detectron2-trainer": "one_file/fixtures/detectron2/trainer/model_0000005.pth",
    "fairseq": "one_file/fixtures/fairseq/run/checkpoint_2_7.pt",
    "timm": "one_file/fixtures/timm/run/last.pth.tar",
    "ultralytics": "one_file/fixtures/ultralytics/interrupted/last.pt",
    "torchtune": "torchtune/fixtures/adapter",
    "torch-checkpointing": "torch_checkpointing/fixtures/plain/step-4",
}
_MOST_FILES, _MOST_KEYS = 4, 12
_FORMATS = (".json", ".pt", ".pth", ".tar", ".bin", ".pkl", ".ckpt")
_JSON = ("_CHECKPOINT_METADATA", "_METADATA", "_sharding", ".zarray", "metadata", "process_0")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def without_their_libraries(monkeypatch):
    """torch.load finds no class of mmengine here; any will do to change what lies beside them."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, StandIn("mmengine")])


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
    if path.suffix == ".json" or path.name in _JSON:
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
    wanted = [p for p in files if p.suffix in _FORMATS or p.name in _JSON]
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
    assert count > 40 or name == "distributed"


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures(tmp_path, name):
    source = Path(__file__).parent / FIXTURES[name]
    target = tmp_path / source.name
    shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
    for path in every_change(target):
        assert crashes(target) == [], path.name


def ranks(tmp_path):
    folder = tmp_path / "run" / "iter_0000100"
    (folder / "mp_rank_00").mkdir(parents=True)
    state = {**common(), "model": {"encoder": {"layers.0.weight": torch.ones(4, 4)}}}
    torch.save(state, folder / "mp_rank_00" / "model_optim_rng.pt")
    return folder


def llama(tmp_path):
    torch.save({"tok_embeddings.weight": torch.ones(4, 4)}, tmp_path / "consolidated.00.pth")
    (tmp_path / "params.json").write_text('{"dim": 4, "n_layers": 1}')
    return tmp_path


def backup(tmp_path):
    shutil.copy2(Path(__file__).parent / "jax/fixtures/keras/model.weights.h5", tmp_path / "latest.weights.h5")
    (tmp_path / "training_metadata.json").write_text('{"epoch": 2, "batch": 7}')
    return tmp_path


BUILT = {
    "megatron": lambda tmp_path: sharded(tmp_path / "iter_0000100"),
    "megatron-fsdp": lambda tmp_path: bridge(tmp_path / "iter_0000100"),
    "megatron-ranks": ranks,
    "llama": llama,
    "keras": backup,
}


@pytest.mark.parametrize("name", BUILT)
def test_what_is_built_file_by_file(tmp_path, name):
    checkpoint = BUILT[name](tmp_path)
    for path in every_change(checkpoint):
        assert crashes(checkpoint) == [], path.name
