"""Known classes that a pickle calls, memory that it asks for, and what stands in the place of the training state."""

from __future__ import annotations

import argparse
import collections
import fractions
import pickle
import tracemalloc

import numpy as np
import pytest
import torch

from ckpt_rules import verify
from ckpt_rules_safety.globals import UnknownGlobal
from ckpt_rules_safety.pickles import PickleLimit
from ckpt_rules_safety.unsafe_load import NeedsUnsafeLoad
from tests.plugins.safety.hostile import Calls, saved, script, text, with_pickle

HUGE = 2**36


def asks_for_class(module, name, args):
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + args + b"R."


CALLED = [
    ("transformers.training_args", "TrainingArguments"),
    ("ultralytics.nn.tasks", "DetectionModel"),
    ("torch.nn.modules.linear", "Linear"),
    ("accelerate.state", "PartialState"),
    ("transformers.integrations.deepspeed", "HfDeepSpeedConfig"),
    ("trl.trainer.sft_trainer", "SFTTrainer"),
    ("argparse", "Namespace"),
    ("deepspeed.runtime.fp16.loss_scaler", "DynamicLossScaler"),
    ("omegaconf.nodes", "AnyNode"),
    ("torch.distributed.checkpoint.metadata", "Metadata"),
]


@pytest.mark.parametrize(("module", "name"), CALLED)
def test_a_known_class_that_is_called_with_arguments_is_a_warning(module, name, put, run_rule):
    path = put("state.pkl", asks_for_class(module, name, text("x") + b"\x85"))
    found = run_rule(UnknownGlobal(), path).assert_one(
        path="state.pkl", key="object", severity="warning", data={"called": f"{module}.{name}", "byte": 2}
    )
    assert found.message.startswith(f"the pickle object calls {module}.{name} with arguments")
    run_rule(UnknownGlobal(allow=(f"{module}.*",)), path).assert_passed()


def test_one_that_is_called_by_way_of_torch_counts(put, run_rule):
    program = b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cultralytics.nn.tasks\nDetectionModel\n"
    program += b"ctorch\nTensor\n" + text("x") + b"\x85N" + b"tR."
    run_rule(UnknownGlobal(), put("state.pkl", program)).assert_one(
        data={"called": "ultralytics.nn.tasks.DetectionModel"}
    )


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_what_trainers_write_is_not_called(protocol, put, run_rule):
    from transformers.trainer_utils import IntervalStrategy

    value = {
        "args": argparse.Namespace(lr=0.1),
        "strategy": IntervalStrategy.STEPS,
        "model": torch.nn.Linear(2, 2).eval(),
        "counts": collections.defaultdict(list),
        "rng": np.random.RandomState(0).get_state(),
    }
    run_rule(UnknownGlobal(), put("state.pkl", pickle.dumps(value, protocol))).assert_passed()


def test_unknown_names_in_training_arguments_are_a_warning(tmp_path, make_trainer_save, run_rule):
    folder = make_trainer_save(tmp_path / "checkpoint-10")
    (folder / "training_args.bin").write_bytes(saved(Calls(tracemalloc.Snapshot.load, "x")))
    found = run_rule(UnknownGlobal(), folder).findings
    assert [(f.place.path, f.severity.value, f.data["globals"]) for f in found] == [
        ("training_args.bin", "warning", ["tracemalloc.Snapshot", "tracemalloc.Snapshot.load"])
    ]


def test_a_script_of_ones_own_is_information_in_training_arguments(tmp_path, make_trainer_save, run_rule):
    folder = make_trainer_save(tmp_path / "checkpoint-10")
    program = b"\x80\x02c__main__\nScriptArguments\n)\x81}" + text("lr") + b"K\x01sb."
    (folder / "training_args.bin").write_bytes(with_pickle(program))
    assert [f.severity.value for f in run_rule(UnknownGlobal(), folder).findings] == ["info"]


def test_estimators_of_scikit_learn_are_known(put, run_rule):
    kinds = (
        pytest.importorskip("sklearn.linear_model").LogisticRegression,
        pytest.importorskip("sklearn.tree").DecisionTreeClassifier,
    )
    features, labels = np.arange(8.0).reshape(4, 2), [0, 1, 0, 1]
    value = [kind().fit(features, labels) for kind in kinds]
    run_rule(UnknownGlobal(), put("probe.joblib", pickle.dumps(value))).assert_passed()


class Net(torch.nn.Module):
    """A network of somebody's own."""


def test_a_whole_network_of_ones_own_is_information(put, run_rule):
    run_rule(UnknownGlobal(), put("tiny.model", saved(Net()))).assert_one(
        path="tiny.model", severity="info", data={"globals": [f"{__name__}.Net"]}
    )


MEMORY = {
    "bytes": (bytes, HUGE),
    "bytearray": (bytearray, HUGE),
    "a list of a range": (list, range(HUGE)),
    "a tuple of a range": (tuple, range(2**80)),
    "a set of a range backwards": (set, range(HUGE, 0, -1)),
    "a frozenset of a range": (frozenset, range(HUGE)),
    "a deque of a range": (collections.deque, range(HUGE)),
    "a counter of a range": (collections.Counter, range(HUGE)),
    "a fraction": (fractions.Fraction, "1e999999999"),
    "an array": (np.ndarray, (HUGE,)),
    "an array to be filled": (np._core.multiarray._reconstruct, np.ndarray, (HUGE,), b"b"),
    "a tensor": (torch.FloatTensor, 2**20, 2**20),
    "a storage": (torch.UntypedStorage, HUGE),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("what", MEMORY)
def test_memory_that_a_call_asks_for_is_a_limit(what, protocol, put, run_rule):
    path = put("state.pkl", pickle.dumps({"a": Calls(*MEMORY[what])}, protocol))
    found = run_rule(PickleLimit(), path).assert_one(path="state.pkl", severity="error", data={"code": "limit"})
    assert "the pickle makes" in found.message


def test_what_is_small_is_no_limit(put, run_rule):
    value = [
        bytes(100),
        Calls(bytearray, 100),
        Calls(list, range(10)),
        Calls(list, range(10, 0, -3)),
        fractions.Fraction(1, 3),
        np.zeros((3, 4)),
    ]
    run_rule(PickleLimit(), put("state.pkl", pickle.dumps(value))).assert_passed()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_torchscript_in_the_place_of_state_is_an_error(name, tmp_path, make_trainer_save, run_rule):
    folder = make_trainer_save(tmp_path / "checkpoint-10")
    (folder / name).write_bytes(script())
    found = run_rule(NeedsUnsafeLoad(), folder).assert_one(
        path=name, severity="error", data={"container": "torchscript"}
    )
    assert found.message.startswith(f"{name} is a TorchScript archive")
    assert verify(folder).verdict.value == "failed"
