"""torch's `state_dict` conventions, as torch writes them and as nobody should."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim import lr_scheduler

from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.tensors import JsonFile, Opaque, ReadProblem, TensorInfo
from ckpt_rules.readers import state_dicts
from ckpt_rules.readers.torch.file import read_torch_file
from ckpt_rules.storage import LocalStorage

OPTIMIZERS = [
    ("AdamW", {}, "AdamW", {"exp_avg", "exp_avg_sq"}, 2),
    ("Adam", {}, "Adam", {"exp_avg", "exp_avg_sq"}, 2),
    ("AdamW", {"amsgrad": True}, "AMSGrad", {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}, 2),
    ("NAdam", {}, "NAdam", {"exp_avg", "exp_avg_sq", "mu_product"}, 2),
    ("RAdam", {}, "RAdam", {"exp_avg", "exp_avg_sq"}, 2),
    ("Adamax", {}, "Adamax", {"exp_avg", "exp_inf"}, 2),
    ("Adagrad", {}, "Adagrad", {"sum"}, 2),
    ("Adadelta", {}, "Adadelta", {"square_avg", "acc_delta"}, 2),
    ("RMSprop", {}, "RMSprop", {"square_avg"}, 2),
    ("Rprop", {}, "Rprop", {"prev", "step_size"}, 2),
    ("ASGD", {}, "ASGD", {"ax", "eta", "mu"}, 2),
    ("Adafactor", {}, "Adafactor", {"row_var", "col_var"}, 2),
    ("Muon", {}, "Muon", {"momentum_buffer"}, None),
    ("SGD", {"lr": 0.1}, "SGD", None, None),
    ("SGD", {"lr": 0.1, "momentum": 0.9}, "SGD with momentum", {"momentum_buffer"}, None),
]
SCHEDULERS = [
    lambda o: lr_scheduler.LambdaLR(o, lambda s: 0.9**s),
    lambda o: lr_scheduler.StepLR(o, 3),
    lambda o: lr_scheduler.MultiStepLR(o, [2, 5]),
    lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10),
    lambda o: lr_scheduler.OneCycleLR(o, 0.1, 100),
    lr_scheduler.LinearLR,
    lr_scheduler.ConstantLR,
    lr_scheduler.PolynomialLR,
    lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1),
    lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [5]),
    lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)]),
]


@pytest.fixture
def saved(tmp_path):
    """What a reader makes of a value that `torch.save` wrote."""

    def save(value):
        torch.save(value, tmp_path / "x.pt")
        with LocalStorage(tmp_path).open("x.pt") as source:
            return read_torch_file(source, "x.pt").value

    return save


def stepped(optimizer, times=2):
    for _ in range(times):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.ones_like(p)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize(("name", "options", "kind", "tensors", "updates"), OPTIMIZERS)
def test_optimizers_of_torch(name, options, kind, tensors, updates, saved):
    optimizer = stepped(getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(3, 2))], **options))
    found = state_dicts.optimizer(saved(optimizer.state_dict()), "x.pt", "opt")
    assert (found.path, found.key, found.kind, found.updates) == ("x.pt", "opt", kind, updates)
    assert found.groups[0].params == (0,)
    assert found.lrs == (optimizer.param_groups[0]["lr"],)
    assert {k: set(s.tensors) for k, s in found.states.items()} == ({0: tensors} if tensors else {})


@pytest.mark.parametrize(("name", "kind"), [("Adam", "Adam"), ("SGD", "SGD"), ("RMSprop", "RMSprop"), ("Adadelta", "Adadelta"), ("Rprop", "Rprop"), ("Adafactor", "Adafactor"), ("LBFGS", "LBFGS"), ("SparseAdam", "unknown")])  # fmt: skip
def test_optimizers_before_their_first_update(name, kind, saved):
    optimizer = getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(3))])
    found = state_dicts.optimizer(saved(optimizer.state_dict()), "x.pt", "opt")
    assert (found.kind, found.updates) == (kind, None)


def test_adam_of_older_torch_is_not_told_from_adamw(saved):
    state = stepped(torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))])).state_dict()
    del state["param_groups"][0]["decoupled_weight_decay"]
    assert state_dicts.optimizer(saved(state), "x.pt", "opt").kind == "Adam or AdamW"


def test_optimizers_outside_of_torch():
    def kind(names, **options):
        tensors = {n: TensorInfo("float32", (3,), 12) for n in names}
        return state_dicts.optimizer(
            {"state": {0: tensors}, "param_groups": [{"params": [0], **options}]}, "x", "k"
        ).kind

    assert kind(["exp_avg"], betas=(0.9, 0.99)) == "Lion"
    assert kind(["exp_avg_sq_row", "exp_avg_sq_col", "RMS"]) == "Adafactor"
    assert kind(["state1", "state2"]) == "8-bit optimizer"
    assert kind(["momentum_buffer"], ns_steps=5) == "Muon"


def test_a_counter_kept_by_the_group():
    tensors = {"exp_avg": TensorInfo("float32", (3,), 12), "exp_avg_sq": TensorInfo("float32", (3,), 12)}
    value = {"state": {0: tensors, 1: tensors}, "param_groups": [{"params": [0, 1], "step": 7}]}
    assert state_dicts.optimizer(value, "x", "k").steps == {7: 2}


def test_names_and_one_optimizer_in_a_list(saved):
    optimizer = stepped(torch.optim.AdamW([("w", torch.nn.Parameter(torch.ones(3)))]))
    found = state_dicts.optimizer(saved([optimizer.state_dict()]), "x.pt", "optimizers")
    assert found.groups[0].names == ("w",)
    assert found.key == "optimizers[0]"
    assert "params" not in found.groups[0].options
    assert "param_names" not in found.groups[0].options


@pytest.mark.parametrize("make", SCHEDULERS)
def test_schedulers_of_torch(make, saved):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1, momentum=0.9)
    scheduler = make(optimizer)
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    found = state_dicts.scheduler(saved(scheduler.state_dict()), "x.pt", "sched")
    assert found.kind == type(scheduler).__name__
    assert found.last_epoch == 3
    assert found.last_lr == tuple(scheduler.get_last_lr())
    assert len(found.base_lrs) == 1
    assert found.step_count in (4, None, 0)


def test_plateau(saved):
    scheduler = lr_scheduler.ReduceLROnPlateau(torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1))
    scheduler.step(1.0)
    found = state_dicts.scheduler(saved(scheduler.state_dict()), "x.pt", "sched")
    assert (found.kind, found.last_epoch, found.step_count, found.base_lrs) == ("ReduceLROnPlateau", 1, None, ())


def test_scalers(saved):
    scaler = state_dicts.scaler(saved(torch.amp.GradScaler("cpu").state_dict()), "x.pt", "scaler")
    assert (scaler.enabled, scaler.scale, scaler.growth_tracker) == (True, 65536.0, 0)
    disabled = state_dicts.scaler(saved(torch.amp.GradScaler("cpu", enabled=False).state_dict()), "x.pt", "scaler")
    assert (disabled.enabled, disabled.scale) == (False, None)
    apex = state_dicts.scaler({"loss_scaler0": {"loss_scale": 128.0, "unskipped": 3}}, "x.pt", "amp")
    assert (apex.key, apex.scale, apex.growth_tracker) == ("amp.loss_scaler0", 128.0, 3)


@pytest.mark.parametrize(
    ("value", "sources"),
    [
        ({"python": (3, (1,), None), "numpy": 1, "torch": 2, "cuda": [3]}, {"python", "numpy", "torch", "cuda"}),
        ({"python": 1, "cuda": None}, {"python"}),
        ({"torch_rng_state": 1, "cuda_rng_state_all": 2, "np_random_state": 3}, {"torch", "cuda", "numpy", "python"}),
        ({"random": 1, "cpu": 2}, {"python", "torch"}),
        (TensorInfo("uint8", (5056,), 5056), {"torch"}),
        ([TensorInfo("uint8", (16,), 16)], {"cuda"}),
        ((3, (1, 2), None), {"python"}),
        ({}, set()),
        ([], set()),
    ],
)
def test_rng(value, sources):
    assert state_dicts.rng(value, "x.pt", "rng").sources == sources


def test_config():
    assert state_dicts.config_file(JsonFile("config.json", 9, {"a": 1})).values == {"a": 1}
    for file in (
        JsonFile("config.json", 9, [1]),
        JsonFile("config.json", 9, None, (ReadProblem("syntax", "no JSON"),)),
    ):
        with pytest.raises(FactUnavailable) as caught:
            state_dicts.config_file(file)
        assert (caught.value.blocked, caught.value.path) == (True, "config.json")


HOSTILE = [
    True, 0, -1, 2**200, math.nan, "", "x", b"x", [], [1], [{}], [None], (), {}, {1: 2}, {None: None}, {"state": 3},
    {"param_groups": 3}, {"param_groups": [{}], "state": {"a": 1, None: {}}}, {"param_groups": [{"params": [[1], {}, None]}], "state": {}},
    {"param_groups": [{"params": 3, "param_names": 3, "lr": {}}], "state": {0: {"step": [], "exp_avg": 3, 4: 5}}},
    {"param_groups": TensorInfo("float32", (2,), 8), "state": {}}, TensorInfo("float32", (2, 3), 24), Opaque("a.B"),
    {"_last_lr": TensorInfo("float32", (2,), 8), "base_lrs": 3, "last_epoch": {}}, {"_schedulers": [3]}, {"_schedulers": [{"last_epoch": "x"}]},
    {"scale": []}, {"loss_scaler0": 3}, {"loss_scaler0": {}}, {1, 2}, frozenset(), object(),
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("read", [state_dicts.optimizer, state_dicts.scheduler, state_dicts.scaler, state_dicts.rng])
def test_whatever_a_file_holds_there_is_a_fact_or_a_reason(read, value):
    for key in ("key", ""):
        try:
            found = read(value, "x.pt", key)
        except FactUnavailable as absent:
            assert absent.reason  # noqa: PT017 - either is fine, no other exception is
            assert absent.path in (None, "x.pt")  # noqa: PT017
        else:
            assert found.path == "x.pt"
            _ = getattr(found, "updates", None), getattr(found, "lrs", None)


@pytest.mark.parametrize(("read", "what"), [(state_dicts.optimizer, "optimizer"), (state_dicts.scheduler, "scheduler"), (state_dicts.scaler, "gradient scaler"), (state_dicts.rng, "random-number")])  # fmt: skip
def test_absence_is_no_damage(read, what):
    for key, words in ((None, f"there is no {what} state"), ("k", f"there is no {what} state: 'k' is None")):
        with pytest.raises(FactUnavailable) as caught:
            read(None, "x.pt", key)
        assert (caught.value.reason, caught.value.blocked) == (words, False)


def test_a_pickled_object_is_no_damage_either():
    with pytest.raises(FactUnavailable, match="'k' is a pickled object of the class torch") as caught:
        state_dicts.optimizer(Opaque("torch.optim.adamw.AdamW"), "x.pt", "k")
    assert not caught.value.blocked
