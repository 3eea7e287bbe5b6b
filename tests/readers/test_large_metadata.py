"""A large `.metadata` is read without building what repeats: what it says must be what running the whole pickle says."""

from __future__ import annotations

import pickle
import pickletools
import random

import pytest
import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType

from ckpt_rules.facts.distributed import StoredItem, StoredTensor
from ckpt_rules.limits import Limits
from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.dcp import metadata as distributed_metadata
from ckpt_rules.readers.dcp.machine import MetadataMachine
from ckpt_rules.readers.pickle.enclosed import Memory

SHAPES = ((64, 8), (8,), (16, 16, 2), ())
DTYPES = (torch.float32, torch.bfloat16)


def fresh(value):
    """An equal object that shares nothing, as what another rank sent is."""
    return pickle.loads(pickle.dumps(value))


def metadata(tensors: int = 40, pieces: int = 2, *, shared: bool = False, planned: bool = True) -> Metadata:
    """What `tensors` tensors of several shapes in `pieces` pieces each make, gathered from ranks or of one process."""
    apart = (lambda value: value) if shared else fresh
    kinds, places, planner = {}, {}, {}
    paths = [f"__{n % 4}_{n // 4}.distcp" for n in range(8)]
    for number in range(tensors):
        name = f"model.layers.{number // 5}.part_{number % 5}.weight"
        shape = SHAPES[number % len(SHAPES)]
        rows = -(-(shape or (1,))[0] // pieces)
        chunks = []
        for piece in range(pieces if shape else 1):
            first = min(piece * rows, (shape or (1,))[0])
            offsets = torch.Size((first,) + (0,) * (len(shape) - 1)) if shape else torch.Size(())
            sizes = torch.Size((min(rows, shape[0] - first), *shape[1:])) if shape else torch.Size(())
            chunks.append(ChunkStorageMetadata(offsets, sizes))
            index = MetadataIndex(apart(name), offsets if shared else torch.Size(tuple(offsets)), piece)
            places[index] = _StorageInfo(paths[(number + piece) % 8], number * 70_000, 1_705 + piece)
        kinds[name] = TensorStorageMetadata(TensorProperties(DTYPES[number % 2]), torch.Size(shape), chunks)
        planner[apart(name)] = ("model", apart(name.removeprefix("model.")), number)
    for group in range(3):
        name = f"optimizer.param_groups.{group}.lr"
        kinds[name] = BytesStorageMetadata()
        places[MetadataIndex(apart(name))] = _StorageInfo(paths[0], 9_000_000 + group, 700)
    return Metadata(kinds, planner if planned else None, places, StorageMeta(checkpoint_id="runs/a"))


def read(data: bytes, *, large: bool, path: str = ".metadata", limits: Limits | None = None):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed_metadata, "LARGE_NBYTES", 0 if large else 1 << 40)
        return distributed_metadata.read_metadata(Memory(data), path, Budget(limits or Limits()))


def told(data: bytes, *, large: bool) -> tuple:
    file, found = read(data, large=large)
    return (
        file.globals,
        file.readable,
        file.problems,
        file.nested,
        found.tensors,
        found.objects,
        sorted(found.items),
        found.problem,
    )


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("options", [{}, {"pieces": 3}, {"pieces": 1}, {"shared": True}, {"planned": False}], ids=str)
def test_it_says_what_running_the_pickle_says(protocol, options):
    data = pickle.dumps(metadata(**options), protocol=protocol)
    assert read(data, large=True)[0].value is None, "it was run as a whole"
    assert told(data, large=True) == told(data, large=False)


def test_more_pairs_than_a_pickler_sets_at_once_and_more_frames_than_one():
    data = pickle.dumps(metadata(2_100), protocol=4)
    assert data.count(b"\x95") > 3
    assert read(data, large=True)[0].value is None
    assert told(data, large=True) == told(data, large=False)


def test_most_pairs_are_never_built(monkeypatch):
    run = []
    as_it_is = MetadataMachine._run_one
    monkeypatch.setattr(MetadataMachine, "_run_one", lambda m, r, level: (run.append(r), as_it_is(m, r, level)))
    read(pickle.dumps(metadata(2_000), protocol=4), large=True)
    assert len(run) < 200, "of 10,000 pairs"


def test_names_that_are_long_or_no_ascii_and_numbers_of_any_size():
    whole = metadata(4)
    for name in ("model." + "x" * 300, "model.größe", "model.\x94ub"):
        whole.state_dict_metadata[name] = fresh(whole.state_dict_metadata["model.layers.0.part_1.weight"])
        whole.storage_data[MetadataIndex(name, torch.Size((0,)), 0)] = _StorageInfo("__0_0.distcp", 1 << 40, 70_000)
    data = pickle.dumps(whole, protocol=4)
    found = read(data, large=True)[1]
    assert found.tensors["model.größe"] == StoredTensor("bfloat16", (8,), found.tensors["model.größe"].chunks)
    assert StoredItem("model.\x94ub", "__0_0.distcp", 1 << 40, 70_000, (0,)) in found.items
    assert told(data, large=True) == told(data, large=False)


def test_stream_extensions_are_told():
    whole = metadata()
    for info in whole.storage_data.values():
        info.transform_descriptors = ["stream.zstd"]
    data = pickle.dumps(whole, protocol=4)
    file, found = read(data, large=True)
    assert (file.value, found.transforms) == (None, frozenset({"stream.zstd"}))
    assert read(data, large=False)[1].transforms == found.transforms
    assert read(pickle.dumps(metadata(), protocol=4), large=True)[1].transforms == frozenset()
    assert told(data, large=True) == told(data, large=False)


def test_paths_are_those_of_the_checkpoint():
    data = pickle.dumps(metadata(), protocol=4)
    (large, small) = (read(data, large=which, path="optimizer_0/.metadata")[1] for which in (True, False))
    assert {item.path.partition("/")[0] for item in large.items} == {"optimizer_0"}
    assert sorted(large.items) == sorted(small.items)


def test_items_are_a_sequence():
    items = read(pickle.dumps(metadata(), protocol=4), large=True)[1].items
    assert items[0] == next(iter(items)) == StoredItem("model.layers.0.part_0.weight", "__0_0.distcp", 0, 1_705, (0, 0))
    assert items[-1].name == "optimizer.param_groups.2.lr"
    assert items[1:3] == (items[1], items[2])
    assert len(items) == len(list(items))


def planned(whole: Metadata, ranks: int = 3) -> Metadata:
    """With the plans of every rank in it, as Megatron keeps them; each as its rank sent it."""
    items = [[] for _ in range(ranks)]
    for number, index in enumerate(whole.storage_data):
        kind = whole.state_dict_metadata[index.fqn]
        if isinstance(kind, BytesStorageMetadata):
            items[number % ranks].append(WriteItem(index, WriteItemType.BYTE_IO))
            continue
        data = TensorWriteData(ChunkStorageMetadata(index.offset, kind.size), kind.properties, kind.size)
        items[number % ranks].append(WriteItem(index, WriteItemType.SHARD, tensor_data=data))
    whole.all_local_plans = [fresh(SavePlan(each, planner_data={"a": ("a",)})) for each in items]
    return whole


class TestPlans:
    """What Megatron keeps of the ranks' plans says everything again; it is passed over."""

    @pytest.mark.parametrize("ranks", [1, 3])
    def test_they_change_nothing(self, ranks):
        with_plans = pickle.dumps(planned(metadata(), ranks), protocol=4)
        assert read(with_plans, large=True)[0].value is None
        assert told(with_plans, large=True) == told(with_plans, large=False)
        assert (
            read(with_plans, large=True)[1].tensors == read(pickle.dumps(metadata(), protocol=4), large=True)[1].tensors
        )

    def test_they_are_not_built(self, monkeypatch):
        run = []
        as_it_is = MetadataMachine._run_one
        monkeypatch.setattr(MetadataMachine, "_run_one", lambda m, r, level: (run.append(r), as_it_is(m, r, level)))
        data = pickle.dumps(planned(metadata(2_000)), protocol=4)
        file, found = read(data, large=True)
        assert (file.readable, len(found.tensors), len(run) < 250) == (True, 2_000, True), len(run)

    def test_a_plan_that_asks_for_more_is_run(self):
        """No opcode hides behind another: what a plan asks for is told, wherever in it that stands."""
        whole = planned(metadata(50))
        whole.all_local_plans[1].items[7] = Malicious()
        data = pickle.dumps(whole, protocol=4)
        assert "posix.system" in {g.dotted for g in read(data, large=True)[0].globals}
        assert told(data, large=True) == told(data, large=False)


class Malicious:
    def __reduce__(self):
        import os

        return os.system, ("true",)


class TestWhatIsUnlike:
    """A pickle that does anything else is run as a whole, whatever that gives."""

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(
                lambda m: m.state_dict_metadata.update({7: BytesStorageMetadata()}), id="a key that is a number"
            ),
            pytest.param(lambda m: m.state_dict_metadata.update({"a": "text"}), id="a value that is a text"),
            pytest.param(lambda m: m.storage_data.update({"a": "b"}), id="a place that is a text"),
            pytest.param(lambda m: m.storage_data.update({MetadataIndex("a"): 7}), id="a place that is a number"),
            pytest.param(lambda m: m.planner_data.update({"a": [1]}), id="a path that is a list"),
            pytest.param(lambda m: m.planner_data.update({"a": m.storage_data}), id="a dictionary in a dictionary"),
        ],
    )
    def test_is_run(self, change):
        whole = metadata()
        change(whole)
        data = pickle.dumps(whole, protocol=4)
        assert told(data, large=True) == told(data, large=False)

    @pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.95])
    def test_and_so_is_one_that_was_cut(self, keep):
        data = pickle.dumps(metadata(), protocol=4)
        data = data[: int(len(data) * keep)]
        assert told(data, large=True) == told(data, large=False)
        assert read(data, large=True)[1].problem.code == "cut-short"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_mutants_say_what_running_them_says(seed):
    """Opcodes replaced, moved, left out, said twice; numbers, texts and references changed."""
    rnd = random.Random(seed)
    whole = pickle.dumps(metadata(12, shared=bool(seed % 2)), protocol=4)
    starts = [at for _, _, at in pickletools.genops(whole)]
    read_so = 0
    for _ in range(120):
        data = mutant(whole, starts, rnd)
        read_so += read(data, large=True)[0].value is None
        assert told(data, large=True) == told(data, large=False)
    assert read_so > 25, "too few mutants came through the reader that this is about"


def mutant(data: bytes, starts: list[int], rnd: random.Random) -> bytes:
    one, other = (rnd.randrange(3, len(starts) - 1) for _ in range(2))
    start, end = starts[one], starts[one + 1]
    further = data[starts[other] : starts[min(other + rnd.choice((1, 2, 3, 20, 26)), len(starts) - 1)]]
    code = data[start : start + 1]
    choice = rnd.randrange(5)
    if code in (b"K", b"M", b"J") and choice < 4:
        new = rnd.choice((b"K\x07", b"M\x01\x02", b"J\xff\xff\xff\xff", b"\x8a\x05\x01\x02\x03\x04\x05", b"N"))
    elif code == b"h" and choice < 3:
        new = b"h" + bytes([rnd.randrange(256)])
    elif code == b"j" and choice < 3:
        new = b"j" + rnd.randrange(1_000).to_bytes(4, "little")
    elif code == b"\x8c" and choice < 4:
        at = rnd.randrange(2, max(3, end - start))
        new = data[start : start + at] + bytes([rnd.choice(b"ubh(z.")]) + data[start + at + 1 : end]
    else:
        new = (further, b"", data[start:end] + further, further + data[start:end], data[start:end] * 2)[choice]
    changed = data[:start] + new + data[end:]
    # The first frame holds the whole pickle: it continues doing so.
    return changed[:3] + (len(changed) - 11).to_bytes(8, "little") + changed[11:]


def test_one_that_is_larger_than_what_is_read_names_the_limit():
    data = pickle.dumps(metadata(6_000, 1), protocol=4)
    assert len(data) > 1 << 20
    file, refused = read(data, large=True, limits=Limits(metadata=1))
    assert not file.readable
    assert (refused.problem.code, refused.tensors) == ("limit", {})
    assert refused.problem.message == (
        f"the metadata has {len(data):,} bytes, more than the 1 MiB that are read (a ruleset can raise this: `limits: {{metadata: …}}`)"
    )


def test_an_attribute_that_is_set_twice_is_that_of_the_last_time():
    """What a save never does, and a pickle may: the second `fqn` is text that stands there, whatever the first says."""
    data = pickle.dumps(metadata(12, 1), protocol=4)
    file = read(data, large=True)[1].items
    marker = b"\x8c\x05index\x94"
    at = data.index(marker)
    changed = data[:at] + b"\x8c\x03fqn\x94\x8c\x05other\x94" + data[at:]
    changed = changed[:3] + (len(changed) - 11).to_bytes(8, "little") + changed[11:]
    assert "other" not in file.names
    assert told(changed, large=True) == told(changed, large=False)


class TestWhatReachesBack:
    """A pickle may change what it has built, in ways that torch never does: what was read of it must not stand."""

    @staticmethod
    def numbered(data):
        """The byte behind each opcode that fills the memo, by the number of the value."""
        return [at + 1 for op, _, at in pickletools.genops(data) if op.name == "MEMOIZE"]

    @staticmethod
    def framed(data):
        return data[:3] + (len(data) - 11).to_bytes(8, "little") + data[11:]

    def get(self, data, marker):
        """The opcode that asks for the value that is remembered first behind a marker."""
        behind = data.index(marker) + len(marker)
        return b"j" + self.numbered(data).index(behind).to_bytes(4, "little")

    def test_a_list_of_chunks_is_appended_to_after_it_was_read(self):
        data = pickle.dumps(metadata(12, 1), protocol=4)
        at = data.index(b"\x8c\x0cstorage_meta\x94")
        chunks, chunk = (
            self.get(data, b"\x8c\x06chunks\x94]\x94"),
            self.get(data, b"ChunkStorageMetadata\x94\x93\x94)\x81\x94"),
        )
        changed = self.framed(data[:at] + b"\x8c\x01z" + chunks + chunk + b"a" + data[at:])
        assert len(read(changed, large=False)[1].tensors["model.layers.0.part_0.weight"].chunks) == 2
        assert told(changed, large=True) == told(changed, large=False)

    def test_a_value_of_the_memo_is_replaced(self):
        data = pickle.dumps(metadata(12, 1), protocol=4)
        names = [at for op, arg, at in pickletools.genops(data) if arg == "model.layers.1.part_2.weight"]
        number = self.numbered(data).index(data.index(b"float32\x94\x93\x94") + len(b"float32\x94\x93\x94"))
        bfloat16 = self.get(data, b"bfloat16\x94\x93\x94")
        at = names[0]
        changed = self.framed(data[:at] + bfloat16 + b"r" + number.to_bytes(4, "little") + b"0" + data[at:])
        assert told(changed, large=True) == told(changed, large=False)

    def test_a_name_under_another_attribute(self):
        """The first index says its name under `x`, and another under `fqn`."""
        data = pickle.dumps(metadata(12, 1), protocol=4)
        fqn = b"\x8c\x03fqn\x94"
        at = data.index(fqn)
        behind = data.index(b"\x94", at + len(fqn)) + 1
        extra = b"\x8c\x03fqn\x94" + data[at + len(fqn) : behind]
        changed = self.framed(data[:at] + b"\x8c\x01x\x94" + data[at + len(fqn) : behind] + extra + data[behind:])
        assert told(changed, large=True) == told(changed, large=False)

    def test_a_plan_that_adds_a_tensor(self):
        data = pickle.dumps(planned(metadata(60), 1), protocol=4)
        kinds = self.get(data, b"\x8c\x13state_dict_metadata\x94}\x94")
        value = self.get(data, b"TensorStorageMetadata\x94\x93\x94)\x81\x94")
        ends = [
            at for op, _, at in pickletools.genops(data) if op.name == "BUILD" and at > data.index(b"all_local_plans")
        ]
        at = ends[len(ends) // 2] + 1
        changed = self.framed(data[:at] + kinds + b"\x8c\x05extra" + value + b"s0" + data[at:])
        assert "extra" in read(changed, large=False)[1].tensors
        assert told(changed, large=True) == told(changed, large=False)

    @pytest.mark.parametrize("more", [b"R", b"b", b"\x86", b"s", b"0", b"2"])
    def test_behind_the_last_item_of_a_plan(self, more):
        data = pickle.dumps(planned(metadata(60), 1), protocol=4)
        at = data.index(b"be", data.index(b"all_local_plans")) + 1
        changed = self.framed(data[:at] + more + data[at:])
        assert told(changed, large=True) == told(changed, large=False)
