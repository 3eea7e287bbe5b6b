"""What lies in a distributed checkpoint, saved as PyTorch's recipe does: silent when clean, and each damage found."""

from __future__ import annotations

import pickle
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from ckpt_rules import inspect, verify
from ckpt_rules.reporters.inspection import render
from tests.layouts.killing import said


class Net(torch.nn.Module):
    """`spare` is part of the model, and of no batch's computation."""

    def __init__(self, spare=()):
        super().__init__()
        self.first, self.last = torch.nn.Linear(6, 8), torch.nn.Linear(8, 4)
        for name, module in spare:
            self.register_module(name, module)

    def forward(self, x):
        return self.last(self.first(x))


class Hollow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w3 = torch.nn.Parameter(torch.empty(0))


class App:
    """PyTorch's AppState, with what else a script keeps."""

    def __init__(self, model, optimizer, flat=False, **more):
        self.parts, self.options, self.more = (
            (model, optimizer),
            StateDictOptions(flatten_optimizer_state_dict=flat),
            more,
        )

    def state_dict(self):
        model, optimizer = get_state_dict(*self.parts, options=self.options)
        return {"model": model, "optim": optimizer, **self.more}

    def load_state_dict(self, state):
        set_state_dict(
            *self.parts, model_state_dict=state["model"], optim_state_dict=state["optim"], options=self.options
        )


def trained(model=None, steps=3, params=None):
    torch.manual_seed(0)
    model = model or Net()
    optimizer = torch.optim.AdamW(params or model.parameters(), lr=1e-3)
    for _ in range(steps):
        model(torch.randn(2, 6)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def save(state, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=path, no_dist=True)
    return path


def load(state, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(state, checkpoint_id=path, no_dist=True)


def edited(path, change):
    metadata = pickle.loads((path / ".metadata").read_bytes())
    change(metadata)
    (path / ".metadata").write_bytes(pickle.dumps(metadata, protocol=4))
    return path


@pytest.fixture
def saved(tmp_path):
    return save({"app": App(*trained(), step=3, extra={"name": "x"})}, tmp_path / "step-3")


def only(path, rule):
    report = verify(path)
    assert not any(o.crash for o in report.outcomes), said(report)
    found = [f for f in report.findings if f.rule == rule]
    assert len(found) == 1, said(report)
    return found[0]


class TestAppState:
    @pytest.mark.parametrize(
        "more", [{}, {"step": 3}, {"step": 3.0}, {"step": torch.tensor(3.0)}, {"step": torch.tensor(3)}]
    )
    @pytest.mark.parametrize("flat", [False, True])
    def test_a_clean_one_passes(self, tmp_path, more, flat):
        report = verify(save({"app": App(*trained(), flat=flat, **more)}, tmp_path / "ck"), strict=True)
        assert (report.passed, report.findings) == (True, []), said(report)
        assert report.reason.startswith("safe to resume; training continues after step 3")

    @pytest.mark.parametrize("lead", ["app", "trainer_state", "fsdp_checkpoint", "a.b"])
    def test_the_wrapper_has_any_name(self, tmp_path, lead):
        state = App(*trained()).state_dict()
        for name in reversed(lead.split(".")):
            state = {name: state}
        path = save(state, tmp_path / "ck")
        seen = inspect(path)
        assert (seen.optimizer.updates, seen.optimizer.parameters, seen.weights.tensors) == (3, 4, 4)
        assert verify(path, strict=True).passed

    def test_a_scheduler_in_a_list(self, tmp_path):
        model, optimizer = trained()
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5).state_dict()
        model, optimizer = get_state_dict(model, optimizer)
        wrapped = {
            "model": model,
            "optimizers": optimizer,
            "lr_schedulers": [schedule],
            "rng": {"cpu": torch.get_rng_state()},
        }
        seen = inspect(save({"fsdp_checkpoint": wrapped}, tmp_path / "ck"))
        assert (seen.optimizer.updates, seen.scheduler.kind, seen.rng.sources) == (3, "StepLR", ("torch",))

    @pytest.mark.parametrize("step", [20.0, torch.tensor(20.0), torch.tensor(20, dtype=torch.int32)])
    def test_a_step_of_any_kind(self, tmp_path, step):
        report = verify(save({"model": {"a": torch.ones(2, 2)}, "step": step}, tmp_path / "ck"))
        assert (report.passed, report.findings) == (True, []), said(report)
        assert "after step 20" in report.reason

    @pytest.mark.parametrize("step", [2.5, float("nan"), -1, "7", None, 2**70])
    def test_a_step_that_makes_no_sense_crashes_nothing(self, tmp_path, step):
        report = verify(save({"model": {"a": torch.ones(2, 2)}, "step": step}, tmp_path / "ck"))
        assert not any(o.crash for o in report.outcomes), said(report)
        assert not report.passed

    def test_inspect_where_the_only_counter_is_the_optimizers(self, tmp_path):
        text = render(inspect(save({"app": App(*trained())}, tmp_path / "ck")))
        assert "nothing is recorded" in text
        assert "training continues after step 3" in text


class TestEntries:
    @pytest.mark.parametrize("name", ["app.optim.param_groups.0.lr", "app.model.first.bias", "app.step"])
    def test_a_description_that_is_lost(self, saved, name):
        found = only(edited(saved, lambda m: m.state_dict_metadata.pop(name)), "ranks/chunk-coverage")
        assert (found.severity, found.place.path, found.place.tensor) == ("error", ".metadata", name)
        assert "no usable description of it" in found.message

    def test_a_description_that_is_none(self, saved):
        change = edited(saved, lambda m: m.state_dict_metadata.update({"app.model.first.bias": None}))
        assert only(change, "ranks/chunk-coverage").place.tensor == "app.model.first.bias"

    def test_an_entry_of_the_plan_of_which_nothing_is_left(self, saved):
        def change(metadata):
            del metadata.state_dict_metadata["app.step"]
            metadata.storage_data = {k: v for k, v in metadata.storage_data.items() if k.fqn != "app.step"}

        found = only(edited(saved, change), "ranks/chunk-coverage")
        assert (found.place.tensor, found.data["names"]) == ("app.step", ["app.step"])
        assert "lacks 1 of the 30 entries" in found.message

    def test_an_object_without_a_place(self, saved):
        def change(metadata):
            metadata.storage_data = {k: v for k, v in metadata.storage_data.items() if k.fqn != "app.step"}

        assert (
            "1 object has no place in any file: app.step" in only(edited(saved, change), "ranks/chunk-coverage").message
        )

    def test_places_that_are_swapped(self, saved):
        path = edited(saved, lambda m: _swap(m, "app.model.first.weight", "app.model.first.bias"))
        found = [f for f in verify(path).findings if f.rule == "ranks/chunk-coverage"]
        assert {f.place.tensor for f in found} == {"app.model.first.weight", "app.model.first.bias"}
        assert all(f.place.path == "__0_0.distcp" and f.place.offset for f in found)
        assert any("a tensor of shape [8] is stored, not one of [8, 6]" in f.message for f in found)

    def test_a_place_too_short_for_its_chunk(self, tmp_path):
        path = save({"model": {"a": torch.ones(300, 300), "b": torch.ones(3)}, "step": 1}, tmp_path / "ck")
        found = verify(edited(path, lambda m: _swap(m, "model.a", "model.b"))).findings[0]
        assert (found.rule, found.place.tensor) == ("ranks/chunk-coverage", "model.a")
        assert "takes 360,000 bytes, but its place in __0_0.distcp has" in found.message


def _swap(metadata, one, other):
    places = {i.fqn: i for i in metadata.storage_data}
    a, b = places[one], places[other]
    metadata.storage_data[a], metadata.storage_data[b] = metadata.storage_data[b], metadata.storage_data[a]


class TestUntrained:
    @pytest.mark.parametrize("flat", [False, True])
    @pytest.mark.parametrize(
        ("spare", "names"),
        [(torch.nn.Linear(2, 2), ["spare.weight", "spare.bias"]), (Hollow(), ["spare.w3"])],
        ids=["linear", "hollow"],
    )
    def test_a_parameter_that_never_had_a_gradient_stops_a_resume(self, tmp_path, spare, names, flat):
        path = save({"app": App(*trained(Net([("spare", spare)])), flat=flat)}, tmp_path / "ck")
        found = only(path, "optimizer/untrained-parameter")
        assert (found.severity, found.data["parameters"], found.place.tensor) == ("warning", names, names[0])
        assert f"no state for {len(names)} of its {4 + len(names)} parameters" in found.message
        again = Net([("spare", spare)])
        fresh = torch.optim.AdamW(again.parameters())
        with pytest.raises(dcp.api.CheckpointException, match="Missing key in checkpoint state_dict"):
            load({"app": App(again, fresh, flat=flat)}, path)

    def test_a_frozen_parameter_outside_of_the_optimizer_is_none(self, tmp_path):
        model = Net([("spare", torch.nn.Linear(2, 2))])
        params = [p for n, p in model.named_parameters() if not n.startswith("spare")]
        model.spare.requires_grad_(False)
        report = verify(save({"app": App(*trained(model, params=params))}, tmp_path / "ck"), strict=True)
        assert (report.passed, report.findings) == (True, []), said(report)


class TestFlattened:
    """torchtitan's form keeps the options of each parameter by itself."""

    def _save(self, path, lr=None):
        model, optimizer = Net(), None
        groups = [{"params": model.first.parameters(), "lr": 1e-2}, {"params": model.last.parameters(), "lr": 1e-3}]
        optimizer = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 / (n + 1))
        for _ in range(5):
            model(torch.randn(2, 6)).sum().backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if lr is not None:
            optimizer.param_groups[1]["lr"] = lr
        flat = App(model, optimizer, flat=True).state_dict()
        state = {**flat["model"], "optimizer": flat["optim"], "lr_scheduler": schedule.state_dict()}
        return save({**state, "train_state": {"step": torch.tensor(5)}}, path)

    def test_parameters_are_no_groups(self, tmp_path):
        report = verify(self._save(tmp_path / "step-5"), strict=True)
        assert (report.passed, report.findings) == (True, []), said(report)

    def test_a_rate_that_the_scheduler_never_set(self, tmp_path):
        found = only(self._save(tmp_path / "step-5", lr=0.5), "scheduler/lr-mismatch")
        assert (found.data["optimizer"], found.data["scheduler"]) == (0.5, pytest.approx(1e-2 / 6))
