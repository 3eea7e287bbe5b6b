"""Which directories are read as plain torch checkpoints, which file holds the state, and which are other trainers'."""

from __future__ import annotations

import os

import pytest
import torch

from ckpt_rules.errors import FactUnavailable
from ckpt_rules.finding import Severity
from ckpt_rules.opening import open_checkpoint
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.signature import Tells
from ckpt_rules.storage import LocalStorage
from ckpt_rules.testing import CheckpointDir

OPT = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
NET = {"weight": torch.zeros(2, 3)}


def opened(path):
    checkpoint, notices = open_checkpoint(LocalStorage(path), installed_plugins())
    assert notices == []
    return checkpoint


@pytest.fixture
def directory(tmp_path):
    return CheckpointDir(tmp_path / "ck")


def test_the_canonical_layout(make_checkpoint):
    checkpoint = opened(make_checkpoint())
    assert checkpoint.layout.name == "plain-torch"
    assert checkpoint.match.score == Tells.STATE + 2
    assert checkpoint.match.signs == ("training_state.pth", "model.safetensors", "config.json")
    assert checkpoint.state.path == "training_state.pth"
    assert [f.path for f in checkpoint.weights.files] == ["model.safetensors"]


@pytest.mark.parametrize("name", ["training_state.pt", "training_state.bin", "train_state.pth", "checkpoint.pt", "ckpt.pt", "state.pt", "last.pth", "checkpoint.pth.tar", "epoch_7.pt", "anything.pth"])  # fmt: skip
def test_the_state_by_any_name(name, make_checkpoint):
    for one_file in (True, False):
        checkpoint = opened(make_checkpoint(state_file=name, one_file=one_file))
        assert checkpoint.layout.name == "plain-torch"
        assert checkpoint.state.path == name
        assert checkpoint.optimizer.kind == "AdamW"
        assert checkpoint.progress.batches_done == 20
        assert len(checkpoint.weights.tensors) == 21
        assert checkpoint.weights.files[0].key == ("model_state_dict" if one_file else "")
        assert checkpoint.config.values["hidden_size"] == 8


@pytest.mark.parametrize("key", ["model", "model_state_dict", "state_dict", "net", "weights", "backbone"])
def test_weights_under_any_key(key, directory):
    checkpoint = opened(directory.write_torch("checkpoint.pt", {key: NET, "optimizer": OPT, "epoch": 3}))
    assert checkpoint.weights.files[0].key == key
    assert set(checkpoint.weights.tensors) == {"weight"}


def test_a_file_called_model_that_holds_everything(directory):
    checkpoint = opened(directory.write_torch("model.pt", {"model": NET, "optimizer": OPT, "epoch": 3}))
    assert checkpoint.state.path == "model.pt"
    assert set(checkpoint.weights.tensors) == {"weight"}


def test_of_several_files_the_usual_name_is_taken(directory):
    whole = {"model": NET, "optimizer": OPT, "epoch": 3}
    directory.write_torch("best.pt", whole).write_torch("last.pt", {**whole, "epoch": 5})
    assert opened(directory).state.path == "last.pt"


def test_a_directory_of_checkpoints_is_none(directory):
    for epoch in (1, 2, 3):
        directory.write_torch(f"epoch_{epoch}.pt", {"model": NET, "optimizer": OPT, "epoch": epoch})
    assert opened(directory).layout.name == "files"


@pytest.mark.parametrize("damage", ["truncate", "empty", "lfs_pointer", "zero"])
@pytest.mark.parametrize("name", ["training_state.pth", "checkpoint.pt"])
def test_a_damaged_state_is_recognised_by_its_name(name, damage, make_checkpoint):
    ck = make_checkpoint(state_file=name)
    getattr(ck, damage)(name)
    checkpoint = opened(ck)
    assert checkpoint.layout.name == "plain-torch"
    for fact in ("state", "optimizer", "scheduler", "scaler", "rng", "recorded", "progress"):
        with pytest.raises(FactUnavailable) as caught:
            getattr(checkpoint, fact)
        assert (caught.value.blocked, caught.value.path) == (True, name)
    assert len(checkpoint.weights.tensors) == 21


@pytest.mark.parametrize("kind", ["fifo", "link", "loop", "directory"])
def test_something_else_under_the_states_name(kind, make_checkpoint):
    ck = make_checkpoint().remove("training_state.pth")
    path = ck / "training_state.pth"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to("../nowhere")
        case "loop":
            path.symlink_to(path.name)
        case "directory":
            path.mkdir()
    checkpoint = opened(ck)
    assert checkpoint.layout.name == "plain-torch"
    with pytest.raises(FactUnavailable) as caught:
        _ = checkpoint.state
    assert caught.value.blocked is (kind != "directory")


def test_weights_without_a_state_can_not_be_resumed(make_checkpoint):
    checkpoint = opened(make_checkpoint().remove("training_state.pth"))
    assert checkpoint.layout.name == "plain-torch"
    assert checkpoint.match.score == Tells.WEIGHTS + 1
    required = checkpoint.requirements[0]
    assert required.names[:2] == ("training_state.pth", "training_state.pt")
    assert required.severity is Severity.ERROR
    assert "there is no training state" in required.why
    with pytest.raises(FactUnavailable, match="there is no training state") as caught:
        _ = checkpoint.progress
    assert not caught.value.blocked


def test_requirements(make_checkpoint):
    required = opened(make_checkpoint()).requirements
    assert [(r.names, r.severity) for r in required] == [
        (("training_state.pth",), Severity.ERROR),
        (("config.json",), Severity.ERROR),
    ]
    assert [r.names for r in opened(make_checkpoint(one_file=True)).requirements] == [("checkpoint.pt",)]


def trainer(ck):
    ck.write_json("trainer_state.json", {"global_step": 5, "epoch": 1.0, "log_history": []})
    trainer_without_its_state(ck)


def trainer_without_its_state(ck):
    ck.write_torch("optimizer.pt", OPT).write_torch("scheduler.pt", {"last_epoch": 5}).write_torch(
        "rng_state.pth", {"cpu": torch.zeros(3)}
    )
    ck.write_safetensors("model.safetensors", NET).write_json("config.json", {})


def trainer_output(ck):
    ck.write_safetensors("model.safetensors", NET).write_json("config.json", {}).write_torch(
        "training_args.bin", {"lr": 1}
    )


def accelerate(ck):
    ck.write_torch("optimizer.bin", OPT).write_torch("scheduler.bin", {"last_epoch": 5}).write_safetensors(
        "model.safetensors", NET
    )
    ck.write_torch("random_states_0.pkl", {"step": 5})


def lightning(ck):
    ck.write_torch(
        "last.ckpt",
        {"state_dict": NET, "optimizer_states": [OPT], "epoch": 1, "global_step": 5, "pytorch-lightning_version": "2"},
    )


def lightning_in_another_suffix(ck):
    ck.write_torch(
        "checkpoint.pt", {"state_dict": NET, "optimizer_states": [OPT], "epoch": 1, "pytorch-lightning_version": "2"}
    )


def deepspeed(ck):
    ck.replace("latest", "global_step5")
    ck.write_torch("global_step5/mp_rank_00_model_states.pt", {"module": NET, "ds_version": "0.1"})
    ck.write_torch("global_step5/zero_pp_rank_0_mp_rank_00_optim_states.pt", {"optimizer_state_dict": OPT})


def distributed(ck):
    ck.replace(".metadata", b"\x80\x04N.").replace("__0_0.distcp", b"PK\x03\x04")


def mmengine(ck):
    ck.write_torch(
        "epoch_3.pth", {"meta": {"epoch": 3, "iter": 30}, "state_dict": NET, "message_hub": {}, "optimizer": OPT}
    )


def fairseq(ck):
    ck.write_torch(
        "checkpoint_last.pt", {"model": NET, "optimizer_history": [{"num_updates": 5}], "extra_state": {"epoch": 1}}
    )


def ultralytics(ck):
    ck.write_torch("last.pt", {"epoch": -1, "model": None, "ema": NET, "optimizer": None, "train_args": {}})


def scheduler_and_weights_of_diffusers(ck):
    ck.write_json("model_index.json", {}).write_safetensors("unet/diffusion_pytorch_model.safetensors", NET)


def data_set(ck):
    ck.replace("train.bin", b"\1\2" * 100).write_json("meta.json", {"vocab_size": 3})


def only_tensors(ck):
    ck.write_torch("embeddings.pt", {"step": torch.zeros(3), "x": torch.zeros(4)})


FOREIGN = [
    trainer, trainer_without_its_state, trainer_output, accelerate, lightning, lightning_in_another_suffix, deepspeed,
    distributed, mmengine, fairseq, ultralytics, scheduler_and_weights_of_diffusers, data_set, only_tensors,
]  # fmt: skip


@pytest.mark.parametrize("write", FOREIGN, ids=lambda f: f.__name__)
def test_other_layouts_are_left_alone(write, directory):
    write(directory)
    checkpoint = opened(directory)
    assert checkpoint.layout.name != "plain-torch"
    if checkpoint.layout.name != "files":
        return  # its own layout's tests say the rest
    assert checkpoint.match is None
    rules = [rule() for rule, plugin in installed_plugins().rules.values() if plugin.name in ("training", "safety")]
    assert len(rules) >= 31
    assert [said for rule in rules for said in _said(rule, checkpoint)] == []


def _said(rule, checkpoint):
    """Problems that a rule finds, and files that keep it from its work."""
    try:
        yield from rule.check(checkpoint)
    except FactUnavailable as absent:
        if absent.blocked:
            yield f"{rule.id} is blocked by {absent.path}"
