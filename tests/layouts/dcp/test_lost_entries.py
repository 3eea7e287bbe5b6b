"""What `dcp.load` asks for by name and a save lacks, or has as something else: told, as the load stops at it."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp

from ckpt_rules import verify
from tests.differential.resumes.mutants import _nested
from tests.differential.resumes.with_dcp import WithAppState, WithFlatEntries

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
METADATA, FILE = ".metadata", "__0_0.distcp"


@pytest.fixture(scope="module")
def saves(tmp_path_factory):
    made = {kind.name: kind(str(tmp_path_factory.mktemp(kind.name))) for kind in (WithAppState, WithFlatEntries)}
    return {name: (trainer, trainer.make()) for name, trainer in made.items()}


@pytest.fixture
def changed(saves, tmp_path):
    """`changed("dcp-flat", change)`: the trainer, the save with its state changed, and what is said of it."""

    def build(name, change):
        trainer, save = saves[name]
        state, out = copy.deepcopy(_nested(save)), tmp_path / "step-3"
        change(state)
        dcp.save(state, checkpoint_id=str(out), no_dist=True)
        return trainer, str(out), findings(out)

    return build


def findings(path):
    report = verify(path)
    assert not [o.crash.traceback for o in report.outcomes if o.crash]
    return [(f.severity.value, f.rule, f.place.key, f.message) for f in report.findings if f.severity.value != "info"]


@pytest.mark.parametrize("name", ["dcp-appstate", "dcp-flat"])
def test_clean_saves_are_silent(name, saves):
    assert findings(saves[name][1]) == []


def drop(*path):
    def change(state):
        for key in path[:-1]:
            state = state[key]
        del state[path[-1]]

    return change


def rename(*path):
    def change(state):
        for key in path[:-1]:
            state = state[key]
        state[f"my_{path[-1]}"] = state.pop(path[-1])

    return change


def put(*path, value):
    def change(state):
        for key in path[:-1]:
            state = state[key]
        state[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("name", "change", "rule", "key", "said"),
    [
        ("dcp-flat", drop("lr_scheduler", "T_max"), "scheduler/bad-field", "lr_scheduler.T_max", "T_max of the scheduler (unknown) is missing, and a distributed load fails without it"),
        ("dcp-flat", drop("lr_scheduler", "_get_lr_called_within_step"), "scheduler/bad-field", "lr_scheduler._get_lr_called_within_step", "_get_lr_called_within_step of the scheduler (CosineAnnealingLR) is missing"),
        ("dcp-flat", drop("optimizer"), "optimizer/missing", "optimizer", "there is no optimizer state: dcp.load requests each of its entries, and stops"),
        ("dcp-flat", put("optimizer", value=[0]), "optimizer/missing", "optimizer", "'optimizer' is a number, where the state_dict of an optimizer belongs"),
        ("dcp-flat", drop("optimizer", "param_groups.3.weight.fused"), "optimizer/bad-hyperparameter", "optimizer.param_groups[1].fused", "fused of parameter group 1 is missing, although other groups have it; a distributed load expects it in every group"),
        ("dcp-appstate", drop("app", "optim", "param_groups", 0, "foreach"), "optimizer/bad-hyperparameter", "optimizer.param_groups[0].foreach", "foreach of parameter group 0 is missing"),
        ("dcp-appstate", rename("app", "optim", "param_groups", 0, "foreach"), "optimizer/bad-hyperparameter", "optimizer.param_groups[0].foreach", "foreach of parameter group 0 is missing"),
        ("dcp-appstate", drop("app", "model", "2.bias"), "optimizer/param-mismatch", "optimizer.state[2.bias]", "the optimizer has state for 2.bias, and the weights have no tensor by this name, as they have for the other 7"),
    ],
)  # fmt: skip
def test_what_a_load_stops_at(name, change, rule, key, said, changed):
    trainer, path, found = changed(name, change)
    assert [(f[0], f[1], said in f[3]) for f in found] == [("error", rule, True)], found
    if found[0][2] is not None:
        assert found[0][2] == key
    with pytest.raises(BaseException, match="Missing key"):
        trainer.resume(path)


@pytest.mark.parametrize(
    ("change", "rule", "said"),
    [
        (drop("lr_scheduler"), "scheduler/missing", "there is no scheduler state"),
        (put("lr_scheduler", "_last_lr", 1, value=0.5), "scheduler/lr-mismatch", "set the learning rate of parameter group 1 to 0.5, but no parameter of the optimizer has it"),
        (put("lr_scheduler", "base_lrs", 1, value=0.5), "scheduler/base-lr-mismatch", "first learning rate of parameter group 1 is 0.5, but no parameter of the optimizer began with it"),
        (put("optimizer", "state.2.weight.exp_avg_sq", value=torch.ones(8, dtype=torch.int64)), "optimizer/moment-dtype", "exp_avg_sq of parameter 2.weight is int64"),
    ],
)  # fmt: skip
def test_what_a_person_must_judge(change, rule, said, changed):
    _, _, found = changed("dcp-flat", change)
    assert [(f[0], f[1], said in f[3]) for f in found] == [("warning", rule, True)], found


@pytest.mark.parametrize("value", [None, "text", [0]])
def test_something_else_in_the_place_of_a_scheduler(value, changed):
    _, _, found = changed("dcp-flat", put("lr_scheduler", value=value))
    assert [f[:3] for f in found] == [("error", "scheduler/missing", "lr_scheduler")], found
    assert "'lr_scheduler' is " in found[0][3]


def test_groups_of_modules_that_are_called_by_numbers_are_known_as_parameters(changed):
    """`param_groups.0.weight.lr` is of the parameter `0.weight`, not of group 0."""
    _, _, found = changed("dcp-flat", put("optimizer", "param_groups.4.bias.amsgrad", value=0))
    assert [f for f in found if "parameter groups" in f[3]] == []


def metadata_with(save, out, change):
    shutil.copytree(save, out)
    with open(f"{save}/{METADATA}", "rb") as file:
        metadata = pickle.load(file)
    change(metadata)
    (out / METADATA).write_bytes(pickle.dumps(metadata))
    return findings(out)


def test_metadata_whose_parts_are_of_another_kind(saves, tmp_path):
    trainer, save = saves["dcp-appstate"]
    name = "app.model.2.bias"

    def other_storage(metadata):
        metadata.storage_meta = [0]

    def other_chunk(metadata):
        metadata.state_dict_metadata[name].chunks = [{"offsets": (0,), "sizes": (8,)}]

    def other_transforms(metadata):
        next(v for k, v in metadata.storage_data.items() if k.fqn == name).transform_descriptors = dict

    said = {
        other_storage: "storage_meta is neither None nor an object of the class StorageMeta",
        other_chunk: f".metadata gives a place for {name}, but no usable description of it",
        other_transforms: name,
    }
    for change, words in said.items():
        out = tmp_path / change.__name__ / "step-3"
        found = metadata_with(save, out, change)
        assert any(f[0] == "error" and f[1] == "ranks/chunk-coverage" and words in f[3] for f in found), found
        with pytest.raises(BaseException):  # noqa: B017, PT011 - DCP's own is not an Exception
            trainer.resume(str(out))


def test_a_tensor_whose_pickle_is_damaged(saves, tmp_path):
    trainer, save = saves["dcp-appstate"]
    out = tmp_path / "step-3"
    shutil.copytree(save, out)
    with open(f"{save}/{METADATA}", "rb") as file:
        place = next(v for k, v in pickle.load(file).storage_data.items() if k.fqn == "app.model.2.bias")
    data = bytearray((out / FILE).read_bytes())
    end = data.index(b"OrderedDict\nq\x08)R", place.offset) + len(b"OrderedDict\nq\x08)R")
    data[end - 1] = ord("s")
    (out / FILE).write_bytes(data)
    (found,) = findings(out)
    assert found[:2] == ("error", "ranks/chunk-coverage")
    assert "app.model.2.bias can't be read from its place in __0_0.distcp (" in found[3]
    with pytest.raises(BaseException):  # noqa: B017, PT011 - DCP's own is not an Exception
        trainer.resume(str(out))


def as_list(state):
    entry = state["app"]["optim"]["state"]
    entry["3.weight"] = list(entry["3.weight"].values())


def as_number(state):
    state["app"]["optim"]["state"]["3.weight"] = 5


@pytest.mark.parametrize(("change", "said"), [(as_list, "a list of 3"), (as_number, "a number")])
def test_something_else_in_the_place_of_a_parameters_state(change, said, changed):
    trainer, path, found = changed("dcp-appstate", change)
    assert [f[:3] for f in found] == [("error", "optimizer/incomplete-state", "optimizer.state[3.weight]")], found
    assert f"the state of parameter 3.weight is {said}, expected a dictionary" in found[0][3]
    with pytest.raises(BaseException, match="Missing key"):
        trainer.resume(path)


def test_every_other_entry_of_the_optimizer_is_lost(changed):
    def half(state):
        state["optimizer"] = {name: value for n, (name, value) in enumerate(state["optimizer"].items()) if n % 2}

    trainer, path, found = changed("dcp-flat", half)
    assert [f[:3] for f in found] == [("error", "optimizer/param-mismatch", "optimizer.state[0.weight]")], found
    assert "parameter 0.weight has no exp_avg_sq, unlike other parameters, and 7 more lack one too" in found[0][3]
    with pytest.raises(BaseException, match="Missing key"):
        trainer.resume(path)


@pytest.mark.parametrize("field", ["eta_min", "T_max", "_get_lr_called_within_step"])
def test_a_dictionary_in_the_place_of_a_schedulers_field(field, changed):
    trainer, path, found = changed("dcp-flat", put("lr_scheduler", field, value={"a": 1, "b": {"lr": 2}}))
    (one,) = [f for f in found if f[0] == "error"]
    assert one[1:3] == ("scheduler/bad-field", f"lr_scheduler.{field}")
    assert "is missing, and a distributed load fails without it" in one[3]
    with pytest.raises(BaseException, match="Missing key"):
        trainer.resume(path)


@pytest.mark.parametrize("field", ["T_max", "_step_count", "last_epoch", "_is_initial"])
@pytest.mark.parametrize("shape", [(), (8,)])
def test_a_tensor_in_the_place_of_a_schedulers_field(field, shape, changed):
    trainer, path, found = changed("dcp-flat", put("lr_scheduler", field, value=torch.ones(shape)))
    errors = [f for f in found if f[:3] == ("error", "scheduler/bad-field", f"lr_scheduler.{field}")]
    assert len(errors) == 1, found
    assert f"{field} of the scheduler" in errors[0][3]
    assert "is a tensor, expected" in errors[0][3]
    with pytest.raises(BaseException, match="expected BytesStorageMetadata"):
        trainer.resume(path)


def test_the_optimizer_in_the_place_of_the_scheduler(changed):
    def change(state):
        state["lr_scheduler"] = state["optimizer"]

    trainer, path, found = changed("dcp-flat", change)
    (one,) = [f for f in found if f[0] == "error"]
    assert one[1] == "scheduler/missing"
    assert "looks like the state_dict of an optimizer" in one[3]
    with pytest.raises(BaseException, match="Missing key"):
        trainer.resume(path)


def test_everything_in_the_place_of_a_schedulers_field(changed):
    def change(state):
        state["lr_scheduler"]["_get_lr_called_within_step"] = copy.deepcopy(state)

    trainer, path, found = changed("dcp-flat", change)
    assert ("error", "scheduler/bad-field", "lr_scheduler._get_lr_called_within_step") in [f[:3] for f in found], found
    with pytest.raises(BaseException, match="Missing key"):
        trainer.resume(path)


def test_a_chunk_placed_without_its_offset(saves, tmp_path):
    trainer, save = saves["dcp-flat"]
    name = "optimizer.state.3.weight.exp_avg"

    def change(metadata):
        index = next(i for i in metadata.storage_data if i.fqn == name)
        metadata.storage_data[dataclasses.replace(index, offset=None)] = metadata.storage_data.pop(index)

    found = metadata_with(save, tmp_path / "step-3", change)
    assert any(f[:2] == ("error", "ranks/chunk-coverage") and "without an offset" in f[3] for f in found), found
    with pytest.raises(BaseException, match="KeyError"):
        trainer.resume(str(tmp_path / "step-3"))


def test_a_stream_extension_that_is_no_name(saves, tmp_path):
    trainer, save = saves["dcp-flat"]

    def change(metadata):
        info = next(i for n, i in metadata.storage_data.items() if n.fqn == "optimizer.param_groups.4.weight.eps")
        info.transform_descriptors = [0]

    found = metadata_with(save, tmp_path / "step-3", change)
    assert any(f[:2] == ("error", "ranks/chunk-coverage") for f in found), found
    with pytest.raises(BaseException, match="partition"):
        trainer.resume(str(tmp_path / "step-3"))


SIZES = [("size", {"sizes": ()}), ("size", None), ("size", [8, 8]), ("offsets", {"sizes": (0,)}), ("offsets", None)]


@pytest.mark.parametrize(
    ("where", "value"),
    [*SIZES, ("offsets", [0]), ("offsets", [type, ()]), ("sizes", {"sizes": (0,)}), ("sizes", "text")],
)
def test_sizes_of_another_kind(where, value, saves, tmp_path):
    trainer, save = saves["dcp-appstate"]
    name = "app.model.2.bias" if value == [0] else "app.optim.state.3.weight.exp_avg"
    value = [] if value == [0] else value

    def change(metadata):
        described = metadata.state_dict_metadata[name]
        setattr(described if where == "size" else described.chunks[0], where, value)

    found = metadata_with(save, tmp_path / "step-3", change)
    assert any(f[:2] == ("error", "ranks/chunk-coverage") and name in f[3] for f in found), found
    with pytest.raises(BaseException):  # noqa: B017, PT011 - DCP's own is not an Exception
        trainer.resume(str(tmp_path / "step-3"))


def test_a_memory_format_of_another_class(saves, tmp_path):
    trainer, save = saves["dcp-appstate"]
    properties = torch.distributed.checkpoint.metadata.TensorProperties
    written = properties.__getstate__

    def change(metadata):
        def other(self):
            dtype, layout, needed, _, pinned = written(self)
            return dtype, layout, needed, torch.Size([8]), pinned

        patch.setattr(properties, "__getstate__", other)

    with pytest.MonkeyPatch.context() as patch:
        found = metadata_with(save, tmp_path / "step-3", change)
    assert [f for f in found if f[1] == "ranks/chunk-coverage" and "no usable description of it" in f[3]], found
    with pytest.raises(BaseException, match="memory_format"):
        trainer.resume(str(tmp_path / "step-3"))


@pytest.mark.parametrize("part", ["state_dict_metadata", "storage_data"])
def test_very_many_that_are_null_are_told_of_some(part, saves, tmp_path):
    found = metadata_with(
        saves["dcp-appstate"][1],
        tmp_path / "step-3",
        lambda m: getattr(m, part).update(dict.fromkeys(getattr(m, part))),
    )
    found = [f[3] for f in found if f[1] == "ranks/chunk-coverage"]
    assert len(found) <= 22
    assert len([f for f in found if f.endswith(" more like this")]) == 1


def test_an_option_that_a_script_gives_one_group_alone(changed):
    trainer, path, found = changed("dcp-appstate", put("app", "optim", "param_groups", 1, "lr_scale", value=0.5))
    assert found == []
    trainer.resume(path)
