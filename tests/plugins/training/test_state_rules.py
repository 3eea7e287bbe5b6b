"""state/…: unreadable, missing and misspelt entries of the training state, and what torch.load refuses."""

from __future__ import annotations

import argparse
import json
import random

import pytest
import torch

from ckpt_rules_safety.unsafe_load import NeedsUnsafeLoad
from ckpt_rules_training.missing_parts import OptimizerMissing, SchedulerMissing
from ckpt_rules_training.state_fields import MissingField, MisspelledField
from ckpt_rules_training.state_unreadable import UnreadableState

STATE = "training_state.pth"


def test_a_clean_checkpoint_passes_them_all(make_checkpoint, run_rule):
    ck = make_checkpoint(weights="sharded")
    for rule in (UnreadableState(), MissingField(), MisspelledField(), NeedsUnsafeLoad()):
        run_rule(rule, ck).assert_passed()


@pytest.mark.parametrize(
    "file", ["config.json", "generation_config.json", "model.safetensors.index.json", "trainer_args/args.json"]
)
def test_json_that_was_cut_short(file, make_checkpoint, run_rule):
    ck = make_checkpoint().write_json(file, {"hidden_size": 8, "layers": [1, 2, 3]}).truncate(file, keep=20)
    finding = run_rule(UnreadableState(), ck).assert_one(
        path=file, message=f"{file} can't be parsed: ", severity="error"
    )
    assert finding.place.offset is not None


@pytest.mark.parametrize(("value", "kind"), [([], "list"), ("x", "str"), (None, "NoneType"), (3, "int")])
def test_json_that_is_no_dictionary(value, kind, make_checkpoint, run_rule):
    ck = make_checkpoint().write_json("config.json", value)
    run_rule(UnreadableState(), ck).assert_one(path="config.json", data={"type": kind}, message="expected a dictionary")


def test_other_peoples_json_is_left_alone(make_checkpoint, run_rule):
    ck = make_checkpoint().replace("log.json", '{"step": 1}\n{"step": 2}\n').write_json("vocab.json", ["a", "b"])
    run_rule(UnreadableState(), ck).assert_passed()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1, 2], "holds no dictionary"),
        ("done", "holds no dictionary"),
        (None, "holds no dictionary"),
    ],
)
def test_a_state_that_is_no_dictionary(value, said, make_checkpoint, run_rule):
    ck = make_checkpoint().write_torch(STATE, value)
    run_rule(UnreadableState(), ck).assert_one(path=STATE, message=said, severity="error")


def test_a_damaged_state_is_reported_by_others(make_checkpoint, run_rule, kit):
    ck = make_checkpoint().truncate(STATE)
    run_rule(UnreadableState(), ck).assert_passed()
    report = kit.verify(ck.path)
    assert report.findings == []
    assert {o.blocked_by for o in report.outcomes if o.blocked_by} == {STATE}
    assert report.verdict.value == "unknown"
    assert report.layout.name == "plain-torch"


@pytest.mark.parametrize(("key", "severity"), [("epoch", "error"), ("step", "error"), ("total_batches", "warning")])
def test_a_counter_is_missing(key, severity, make_checkpoint, run_rule, kit):
    ck = make_checkpoint().drop_key(STATE, key)
    finding = run_rule(MissingField(), ck).assert_one(path=STATE, key=key, severity=severity, data={"field": key})
    assert finding.message.startswith(f"the training state has no {key}: without it")
    said = [f.rule for f in kit.verify(ck.path).findings]
    assert said == ["state/missing-field"]


def test_a_counter_is_none(make_checkpoint, run_rule):
    ck = make_checkpoint().set_key(STATE, "epoch", None)
    run_rule(MissingField(), ck).assert_one(key="epoch", message="'epoch' in the training state is None")


def test_no_counter_at_all(kit, tmp_path, run_rule):
    run = kit.train()
    state = {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict(), "loss": 0.3}
    path = kit.save_one_file(tmp_path / "ck", state)
    run_rule(MissingField(), path).assert_one(
        path="checkpoint.pt", severity="error", message="the training state has no progress counter: without an epoch"
    )
    state["tokens_seen"] = 4000
    run_rule(MissingField(), kit.save_one_file(tmp_path / "tokens", state)).assert_passed()


@pytest.mark.parametrize(
    ("key", "wrong", "field", "severity"),
    [
        ("optimizer_state_dict", "optimizer_state_dit", "optimizer", "error"),
        ("optimizer_state_dict", "optimzer_state_dict", "optimizer", "error"),
        ("optimizer_state_dict", "OptimizerStateDict", "optimizer", "error"),
        ("scheduler_state_dict", "schedular_state_dict", "scheduler", "warning"),
        ("scaler_state_dict", "scaler_state_dct", "scaler", "warning"),
        ("rng_state", "rng_sate", "rng", "warning"),
        ("epoch", "epcoh", "epoch", "error"),
        ("step", "setp", "step", "error"),
        ("total_batches", "total_batchs", "total_batches", "warning"),
    ],
)
def test_a_key_is_misspelt(key, wrong, field, severity, make_checkpoint, run_rule, kit):
    ck = make_checkpoint(scaler=True).rename_key(STATE, key, wrong)
    run_rule(MisspelledField(), ck).assert_one(
        path=STATE, key=wrong, severity=severity, message=f"did you mean '{key}'?", data={"field": field, "meant": key}
    )
    report = kit.verify(ck.path)
    said = [f.rule for f in report.findings if f.severity != "info"]
    assert said == ["state/misspelled-field"], "one slip, one finding"


def test_without_the_rule_a_misspelt_optimizer_is_no_pass(make_checkpoint, run_rule):
    ck = make_checkpoint().rename_key(STATE, "optimizer_state_dict", "optimizer_state_dit")
    result = run_rule(OptimizerMissing(), ck)
    result.assert_skipped("'optimizer_state_dit' in training_state.pth is probably a misspelling", blocked_by=STATE)
    assert result.report.verdict.value == "unknown"


@pytest.mark.parametrize("key", ["optimizer_G", "loss", "best_step_time", "scheduler_name", "model_ema", "stop"])
def test_other_words_are_no_misspellings(key, make_checkpoint, run_rule):
    ck = make_checkpoint(extra={key: {"param_groups": [], "state": {}} if key == "optimizer_G" else 3})
    run_rule(MisspelledField(), ck).assert_passed()


@pytest.mark.filterwarnings("ignore:.*pickle protocol")
def test_numpy_random_state(make_checkpoint, run_rule):
    ck = make_checkpoint(rng="numpy")
    finding = run_rule(NeedsUnsafeLoad(), ck).assert_one(
        path=STATE,
        severity="warning",
        message="torch.load refuses training_state.pth by default: its pickle imports numpy",
    )
    assert [g.rpartition(".")[2] for g in finding.data["globals"]] == ["_reconstruct", "dtype", "ndarray"]
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(ck / STATE)
    run_rule(NeedsUnsafeLoad(allow=tuple(finding.data["globals"])), ck).assert_passed()
    run_rule(NeedsUnsafeLoad(allow=("numpy.dtype",)), ck).assert_one(message="numpy.ndarray")


def test_a_namespace_in_the_weights_file(make_checkpoint, run_rule):
    ck = make_checkpoint(weights="bin").edit("pytorch_model.bin", lambda w: {**w, "args": argparse.Namespace(lr=1)})
    run_rule(NeedsUnsafeLoad(), ck).assert_one(path="pytorch_model.bin", data={"globals": ["argparse.Namespace"]})


def test_files_with_loaders_of_their_own_are_left_alone(make_checkpoint, run_rule):
    ck = (
        make_checkpoint()
        .write_torch("training_args.bin", argparse.Namespace(lr=1))
        .write_torch("rng_state.pth", random.Random(1))
    )
    run_rule(NeedsUnsafeLoad(), ck).assert_passed()


def test_a_new_pickle_protocol(make_checkpoint, run_rule):
    ck = make_checkpoint()
    torch.save({"epoch": 1, "step": 0, "total_batches": 3}, ck / STATE, pickle_protocol=4)
    run_rule(NeedsUnsafeLoad(), ck).assert_one(path=STATE, message="it uses pickle protocol 4", data={"protocol": 4})
    with pytest.raises(Exception, match="Weights only load failed"), pytest.warns(UserWarning, match="protocol"):
        torch.load(ck / STATE)


def test_no_torch_file_no_question(make_checkpoint, run_rule):
    ck = make_checkpoint().remove(STATE)
    run_rule(NeedsUnsafeLoad(), ck).assert_skipped("no torch file")


def test_the_list_is_torchs_own():
    from torch import _weights_only_unpickler

    from ckpt_rules_safety.torch_globals import ALLOWED

    if torch.__version__.startswith("2.13"):
        assert set(_weights_only_unpickler._get_allowed_globals()) <= ALLOWED
    assert len(ALLOWED) == 158


def test_a_json_state_that_is_cut_short_is_reported_once(kit, tmp_path, run_rule):
    path = kit.save_canonical(kit.train(), tmp_path / "ck")
    (path / STATE).unlink()
    (path / "training_state.json").write_text(json.dumps({"epoch": 2, "step": 0})[:-4])
    run_rule(UnreadableState(), path).assert_one(path="training_state.json")


def test_missing_parts_leave_the_fields_to_each_other(make_checkpoint, run_rule):
    ck = make_checkpoint().drop_key(STATE, "optimizer_state_dict").drop_key(STATE, "scheduler_state_dict")
    run_rule(MissingField(), ck).assert_passed()
    run_rule(OptimizerMissing(), ck).assert_one(key="optimizer_state_dict")
    run_rule(SchedulerMissing(), ck).assert_one(key="scheduler_state_dict")
