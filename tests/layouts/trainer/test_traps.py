"""What looks like damage and is none, in checkpoints that the real Trainer wrote; and the run's directory above them."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckpt_rules import inspect, newest_checkpoint, verify
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.runs import checkpoints_in
from tests.layouts.killing import json_value, said

TRAIN, FAMILIES = "trainer/train.py", "trainer/families.py"
TIED = ("gpt2", "gemma2", "t5", "bert", "opt", "bart", "whisper")
CLEAN = (
    *TIED, "padded", "norm-in-float32", "no-configuration", "adamw_torch_fused", "rmsprop", "adagrad", "unusual",
)  # fmt: skip
SILENT_INFO = {"progress/finished", "optimizer/moment-dtype"}

NOT_RESUMED, ADAPTER = "weights/adapter-not-resumed", "adapter_model.safetensors"

pytestmark = pytest.mark.slow


def resumed(made, name):
    return json.loads((made(FAMILIES) / "resumed.json").read_text())[name]


def assert_clean(path, ruleset="deep"):
    report = verify(path, ruleset=ruleset, strict=True)
    assert report.passed, said(report)
    assert {f.rule for f in report.findings} <= SILENT_INFO, said(report)


@pytest.mark.parametrize("name", CLEAN)
def test_what_the_trainer_saves_of_many_models_is_clean(made, name):
    # Nothing tells a module of one's own from a transformers model whose configuration was lost.
    for ruleset in ("deep",) if name == "no-configuration" else ("deep", "inference"):
        assert_clean(made(FAMILIES) / name / "checkpoint-2", ruleset)


@pytest.mark.parametrize("name", TIED)
def test_a_tied_head_is_not_stored(made, name):
    header = inspect(made(FAMILIES) / name / "checkpoint-2").weights
    assert header.files == ("model.safetensors",)
    from safetensors import safe_open

    with safe_open(made(FAMILIES) / name / "checkpoint-2" / "model.safetensors", "pt") as file:
        assert not {"lm_head.weight", "proj_out.weight", "cls.predictions.decoder.weight"} & set(file.keys())


def test_embeddings_are_padded_beyond_the_tokenizer(made):
    from safetensors import safe_open

    with safe_open(made(FAMILIES) / "padded" / "checkpoint-2" / "model.safetensors", "pt") as file:
        assert file.get_slice("model.embed_tokens.weight").get_shape() == [128, 16]  # for 69 tokens


@pytest.mark.parametrize(("name", "what"), [("qwen3-moe", "the experts"), ("gpt-neox", "the output embedding")])
def test_models_with_other_names_on_disk_lose_weights_at_a_resume(made, name, what):
    (found,) = [f for f in verify(made(FAMILIES) / name / "checkpoint-2").findings if f.severity != "info"]
    assert (found.rule, found.place.path) == ("weights/converted-on-save", "model.safetensors")
    assert f"will not restore {what} of this" in found.message


class TestAdapters:
    """What PEFT trains and does not save, and adapters that lie in a directory of their name."""

    @pytest.mark.parametrize("name", ["cartridge", "two-adapters", "named-adapter"])
    def test_nothing_is_lost(self, made, name):
        for ruleset in ("deep", "inference"):
            assert_clean(made(FAMILIES) / name / "checkpoint-2", ruleset)
        restored, all_of = resumed(made, name)
        assert restored == all_of

    @pytest.mark.parametrize(("name", "parameters"), [("p-tuning", 7), ("p-tuning-lstm", 21)])
    def test_an_encoder_that_starts_anew_is_information(self, made, name, parameters):
        report = verify(made(FAMILIES) / name / "checkpoint-2", ruleset="deep", strict=True)
        (found,) = [f for f in report.findings if f.rule not in SILENT_INFO]
        assert (found.rule, found.place.path, found.severity) == (NOT_RESUMED, ADAPTER, "info")
        assert report.passed
        assert resumed(made, name) == [0, parameters]

    @pytest.mark.parametrize(
        ("name", "error"),
        [("prefix-projection", "size mismatch"), ("largest-logits", "Found infinity values in VB-LoRA logits")],
    )
    def test_what_no_resume_takes_is_an_error(self, made, name, error):
        checkpoint = made(FAMILIES) / name / "checkpoint-2"
        (found,) = [f for f in verify(checkpoint, ruleset="deep").findings if f.rule not in SILENT_INFO]
        assert (found.rule, found.place.path, found.severity) == (NOT_RESUMED, ADAPTER, "error")
        assert error in found.message
        assert error in resumed(made, name)
        assert_clean(checkpoint, "inference")

    def test_the_plan_tells_it_where_something_is_left_to_train(self, copied):
        checkpoint = copied(FAMILIES, "p-tuning/checkpoint-2")
        said_at_the_end = inspect(checkpoint).resume.sentence
        json_value("trainer_state.json", "max_steps", 4).apply(checkpoint)
        words = "; the prompt encoder is reinitialised: PEFT saves only its output"
        assert (words in said_at_the_end, words in inspect(checkpoint).resume.sentence) == (False, True)

    @pytest.mark.parametrize("name", ["p-tuning", "p-tuning-lstm", "prefix-projection", "cartridge", "largest-logits"])
    @pytest.mark.parametrize("other", ["gpt2", "named-adapter"])
    def test_the_optimizer_of_another_model(self, made, copied, name, other):
        checkpoint = copied(FAMILIES, f"{name}/checkpoint-2")
        shutil.copy2(made(FAMILIES) / other / "checkpoint-2" / "optimizer.pt", checkpoint)
        assert "optimizer/param-mismatch" in {f.rule for f in verify(checkpoint).findings}

    @pytest.mark.parametrize(
        ("name", "path", "rule"),
        [
            ("named-adapter", "mine/adapter_config.json", "files/missing-required"),
            ("named-adapter", "mine/adapter_model.safetensors", "files/missing-required"),
            ("two-adapters", "adapter_config.json", "files/missing-required"),
            ("two-adapters", "other/adapter_config.json", "files/missing-required"),
            ("two-adapters", "other/adapter_model.safetensors", "files/missing-required"),
        ],
    )
    def test_a_file_of_one_adapter(self, copied, name, path, rule):
        checkpoint = copied(FAMILIES, f"{name}/checkpoint-2")
        (checkpoint / path).unlink()
        assert (rule, path) in {(f.rule, f.place.path) for f in verify(checkpoint).findings}

    def test_the_configuration_of_another_adapter(self, copied):
        checkpoint = copied(FAMILIES, "two-adapters/checkpoint-2")
        shutil.copy2(checkpoint / "adapter_config.json", checkpoint / "other")
        found = {
            f.place.path for f in verify(checkpoint).findings if f.rule == "weights/adapter" and f.severity == "error"
        }
        assert found == {f"other/{ADAPTER}"}

    def test_an_adapter_that_was_trained_and_is_zero(self, copied):
        """All of them are zero where none was trained, which two updates should have done."""
        checkpoint = copied(FAMILIES, "two-adapters/checkpoint-2")
        weights = load_file(checkpoint / "other" / ADAPTER)
        (checkpoint / "other" / ADAPTER).unlink()
        save_file({name: value * 0 for name, value in weights.items()}, checkpoint / "other" / ADAPTER)
        found = {f.place.path for f in verify(checkpoint, ruleset="deep").findings if f.rule == "numerics/all-zero"}
        assert f"other/{ADAPTER}" in found


def test_an_adapter_that_was_never_trained_has_zeros(made):
    adapter = made(FAMILIES) / "lora-at-start"
    assert [f.rule for f in verify(adapter, ruleset="deep").findings] == ["files/not-resumable"]
    assert_clean(adapter, "inference")


def test_weights_are_readable_by_their_owner_alone(made):
    path = made(FAMILIES) / "gpt2" / "checkpoint-2" / "model.safetensors"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_links_into_the_blobs_of_a_cache(made, tmp_path):
    """As the hub's cache lays a repository out: `snapshots/REVISION/NAME` is a relative link to `blobs/DIGEST`."""
    blobs, snapshot = tmp_path / "models--us--tiny" / "blobs", tmp_path / "models--us--tiny" / "snapshots" / ("0" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in (made(FAMILIES) / "gpt2" / "checkpoint-2").iterdir():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy2(path, blobs / digest)
        (snapshot / path.name).symlink_to(f"../../blobs/{digest}")
    for ruleset in ("default", "deep", "inference"):
        assert_clean(snapshot, ruleset)


def test_a_small_shard_in_the_middle(made, tmp_path):
    """Shards are filled in the order of the model, and a large tensor closes the one before it, however small that is."""
    checkpoint = Path(shutil.copytree(made(FAMILIES) / "gpt2" / "checkpoint-2", tmp_path / "checkpoint-2"))
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    first, *others = sorted(tensors, key=lambda name: -tensors[name].numel())
    shards = [[first], others[-1:], others[:-1]]
    names = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    for name, keys in zip(names, shards, strict=True):
        save_file({key: tensors[key] for key in keys}, checkpoint / name, metadata={"format": "pt"})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    weight_map = {key: name for name, keys in zip(names, shards, strict=True) for key in keys}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    sizes = [(checkpoint / name).stat().st_size for name in names]
    assert sizes[1] * 10 < min(sizes[0], sizes[2])
    for ruleset in ("deep", "inference"):
        assert_clean(checkpoint, ruleset)


def test_updates_that_the_loss_scale_skipped(copied):
    """The Trainer refuses fp16 on a CPU; torch's own scaler does not, and skips two of three updates here."""
    checkpoint = copied(TRAIN, "plain", "run/checkpoint-8")
    scaler, model = torch.amp.GradScaler("cpu"), torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    for factor in (float("inf"), float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(1, 2)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.state[model.weight]["step"] == 1
    torch.save(scaler.state_dict(), checkpoint / "scaler.pt")
    set_back(checkpoint, 2)
    assert_clean(checkpoint)
    set_back(checkpoint, 2)
    assert "optimizer/step-drift" in {f.rule for f in verify(checkpoint).findings}


def set_back(checkpoint, updates):
    """The optimizer's and the scheduler's counters, which the Trainer steps together; and fp16 in the arguments."""
    optimizer, scheduler = (torch.load(checkpoint / name) for name in ("optimizer.pt", "scheduler.pt"))
    for state in optimizer["state"].values():
        state["step"] -= updates
    scheduler["last_epoch"] -= updates
    scheduler["_step_count"] -= updates
    arguments = torch.load(checkpoint / "training_args.bin", weights_only=False)
    arguments.fp16 = True
    for name, value in (("optimizer.pt", optimizer), ("scheduler.pt", scheduler), ("training_args.bin", arguments)):
        torch.save(value, checkpoint / name)


class TestRun:
    """The directory above: old saves are deleted, the best is kept, the final model lies beside them."""

    @pytest.fixture
    def run(self, made, tmp_path):
        shutil.copytree(made(TRAIN, "best") / "run", tmp_path / "run")
        return tmp_path / "run"

    def test_each_save_that_is_left_is_verified(self, run):
        assert {"model.safetensors", "trainer_state.json", "training_args.bin"} <= {p.name for p in run.iterdir()}
        found = checkpoints_in(str(run), installed_plugins())
        assert len(found) == 2
        assert all(verify(path).passed for path in found)

    def test_the_newest_that_is_complete(self, run):
        newest = max(run.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
        assert newest_checkpoint(run) == str(newest)
        (newest / "trainer_state.json").unlink()
        (other,) = set(run.glob("checkpoint-*")) - {newest}
        assert newest_checkpoint(run) == str(other)

    def test_the_trainer_would_take_the_highest_number(self, run):
        newest = max(run.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
        (other,) = set(run.glob("checkpoint-*")) - {newest}
        words = "resume_from_checkpoint=True picks it anyway, because its number is the highest"
        for checkpoint, is_said in ((newest, True), (other, False)):
            (checkpoint / "trainer_state.json").unlink()
            (found,) = [f for f in verify(checkpoint).findings if f.rule == "files/commit-marker"]
            assert (words in found.message) is is_said

    @pytest.mark.parametrize("adapter", [True, False])
    def test_a_final_adapter_or_model_does_not_hide_the_checkpoints(self, made, tmp_path, adapter):
        variant = "lora" if adapter else "plain"
        shutil.copytree(made(TRAIN, variant) / "run", tmp_path / "run")
        final = tmp_path / "run" / "checkpoint-8"
        for path in final.glob("adapter_*" if adapter else "*.safetensors"):
            shutil.copy2(path, tmp_path / "run")
        assert newest_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "checkpoint-22")
