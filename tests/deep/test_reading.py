"""One pass over every byte: tensors and zip entries of each format are found where they lie, and read once."""

from __future__ import annotations

import hashlib
import math
import zlib
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context

import pytest
import torch
import torch.distributed.checkpoint as dcp
from blake3 import blake3
from safetensors.torch import save_file

from ckpt_rules import Block, Digest, Measure, Spot, UsageError, Wanted
from ckpt_rules.deep import pieces
from ckpt_rules.deep.facts import located_tensors, measured_tensors, read_all
from ckpt_rules.deep.pieces import plan
from ckpt_rules.opening import checkpoint_at
from ckpt_rules.reading import Reading

EVERYTHING = Measure.ALL | Measure.FINGERPRINT
LARGE = (3000, 4000)  # 48 MB: more than one piece


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(1)
    large = torch.randn(LARGE)
    large[2999, 3999] = math.nan
    return {
        "w": torch.randn(64, 32),
        "large": large,
        "half": torch.randn(7, 5).half(),
        "bf16": torch.randn(9).bfloat16(),
        "number": torch.tensor(3.5),
        "ids": torch.arange(10),
        "complex": torch.randn(4, dtype=torch.complex64),
        "nothing": torch.empty(0, 3),
    }


@pytest.fixture(scope="module")
def saved(tensors, tmp_path_factory):
    """The same tensors in each format."""
    folder = tmp_path_factory.mktemp("saved")
    torch.save(tensors, folder / "zip.pt")
    torch.save({"nested": [tensors]}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(tensors, folder / "model.safetensors")
    return folder


def by_name(checkpoint, measures=EVERYTHING):
    return {(m.tensor.path, m.tensor.name): m for m in measured_tensors(checkpoint, measures)}


@pytest.mark.parametrize(("path", "prefix"), [("zip.pt", ""), ("legacy.pth", "nested.0."), ("model.safetensors", "")])
@pytest.mark.parametrize("jobs", [1, 2])
def test_each_tensor_has_the_values_that_were_saved(saved, tensors, path, prefix, jobs):
    checkpoint = checkpoint_at(saved)
    checkpoint.reading = Reading(jobs)
    found = by_name(checkpoint)
    for name, tensor in tensors.items():
        if not tensor.numel():
            assert (path, prefix + name) not in found
            continue
        _, values, first = found[path, prefix + name]
        expected = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        finite = expected[torch.isfinite(expected)].double()
        assert (values.smallest, values.largest) == (finite.min(), finite.max())
        assert values.norm == pytest.approx(float(finite.norm()))
        assert values.fingerprint == zlib.crc32(bytes(tensor.contiguous().view(-1).view(torch.uint8).numpy()))
        assert (first.index if first else None) == ((2999, 3999) if name == "large" else None)


def test_the_place_of_the_first_value_that_is_not_finite_is_a_byte_of_its_file(saved):
    spot = by_name(checkpoint_at(saved))["model.safetensors", "large"].first
    assert spot == Spot((2999, 3999), "model.safetensors", spot.offset)
    assert math.isnan(
        torch.frombuffer(bytearray((saved / spot.path).read_bytes()[spot.offset :][:4]), dtype=torch.float32)
    )


def test_every_checksum_is_the_one_that_torch_stored(saved):
    found = read_all(checkpoint_at(saved), Wanted(checksums=True))
    assert {m.path for m in found.checksums} == {"zip.pt"}
    assert all(crc == member.crc for member, crc in found.checksums.items())
    assert {"zip/data/0", "zip/data.pkl"} <= {m.name for m in found.checksums}


def test_digests_are_those_of_other_tools(saved):
    data = (saved / "zip.pt").read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    expected = {"blake3": blake3(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest(), "git-sha1": git}
    wanted = Wanted(EVERYTHING, digests=frozenset(Digest("zip.pt", algorithm) for algorithm in expected))
    found = read_all(checkpoint_at(saved), wanted)
    assert found.digests == {Digest("zip.pt", algorithm): value for algorithm, value in expected.items()}


def test_views_are_read_where_their_elements_lie(tmp_path):
    base = torch.arange(64 * 32, dtype=torch.float32).reshape(64, 32)
    odd = base.clone()
    odd[3, 5] = math.nan
    torch.save(
        {"all": base, "tied": base, "rows": base[10:20], "turned": odd.t(), "every other column": base[:, ::2]},
        tmp_path / "views.pt",
    )
    found = {name: m for (_, name), m in by_name(checkpoint_at(tmp_path)).items()}
    assert found["all"].values == found["tied"].values
    assert (found["rows"].values.smallest, found["rows"].values.largest) == (320, 639)
    assert found["turned"].first.index == (5, 3)
    assert "every other column" not in found


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_chunks_of_a_distributed_checkpoint_are_joined(tmp_path):
    weight = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    weight[2, 1] = math.inf
    state = {"model": {"weight": weight}, "optimizer": {"step": torch.tensor(3.0)}}
    dcp.save(state, checkpoint_id=tmp_path, no_dist=True)
    checkpoint = checkpoint_at(tmp_path)
    found = {m.tensor.name: m for m in measured_tensors(checkpoint, EVERYTHING)}
    assert found["model.weight"].first.index == (2, 1)
    assert (found["model.weight"].values.above, found["model.weight"].values.largest) == (1, 23)
    assert found["optimizer.step"].values.largest == 3
    read = read_all(checkpoint, Wanted(checksums=True))
    assert read.checksums
    assert all(member.crc == crc for member, crc in read.checksums.items())


class Counting(Executor):
    """Runs each task at once, and counts them."""

    def __init__(self):
        self.pieces = []

    def submit(self, fn, /, *args, **kwargs):
        self.pieces.append(args[0])
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_any_executor_will_do_and_every_byte_is_handed_out_once(saved):
    executor = Counting()
    checkpoint = checkpoint_at(saved)
    checkpoint.reading = Reading(executor=executor)
    read = read_all(checkpoint, Wanted(EVERYTHING, checksums=True))
    assert read.nbytes <= sum(e.size for e in checkpoint.listing)
    spans = sorted((p.path, p.start, p.stop) for p in executor.pieces)
    assert all(a[0] != b[0] or a[2] <= b[1] for a, b in pairwise(spans))
    asked = len(executor.pieces)
    read_all(checkpoint, Wanted(Measure.RANGE))
    assert len(executor.pieces) == asked


@pytest.mark.slow
def test_an_executor_of_processes_finds_the_same(saved):
    here, there = checkpoint_at(saved), checkpoint_at(saved)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        there.reading = Reading(executor=executor)
        assert read_all(there, Wanted(EVERYTHING, checksums=True)) == read_all(here, Wanted(EVERYTHING, checksums=True))


def test_a_file_that_shrinks_meanwhile_is_told_and_the_rest_is_read(tmp_path):
    save_file({"a": torch.ones(4096)}, tmp_path / "a.safetensors")
    save_file({"b": torch.ones(4096)}, tmp_path / "b.safetensors")
    checkpoint = checkpoint_at(tmp_path)
    assert len(located_tensors(checkpoint)) == 2
    with (tmp_path / "a.safetensors").open("r+b") as file:
        file.truncate(1000)
    assert [m.tensor.name for m in measured_tensors(checkpoint, Measure.RANGE)] == ["b"]
    assert checkpoint.files.read_errors == {"a.safetensors": "it ends at byte 1,000; when it was listed it was longer"}


def test_what_stops_the_progress_stops_the_reading(saved):
    def stop(read, total):
        raise KeyboardInterrupt

    checkpoint = checkpoint_at(saved)
    checkpoint.reading = Reading(progress=stop)
    with pytest.raises(KeyboardInterrupt):
        read_all(checkpoint, Wanted(Measure.RANGE))


def test_progress_counts_up_to_all_bytes(saved):
    told = []
    checkpoint = checkpoint_at(saved)
    checkpoint.reading = Reading(jobs=1, progress=lambda read, total: told.append((read, total)))
    nbytes = read_all(checkpoint, Wanted(Measure.RANGE)).nbytes
    assert told == sorted(told)
    assert told[-1] == (nbytes, nbytes)


def test_no_job_at_all_is_a_mistake():
    with pytest.raises(UsageError, match="the number of jobs is 0; it must be at least 1"):
        Reading(0)


# How files are cut


def test_pieces_end_between_elements():
    block = Block("f", 1003, 3 * pieces.PIECE_NBYTES, "float64")
    cut = plan({"f": 10 * pieces.PIECE_NBYTES}, [block], [], [], Measure.RANGE).pieces
    assert [p.stop for p in cut[:-1]] == [p.start for p in cut[1:]]
    assert all((p.start - 1003) % 8 == 0 for p in cut)
    assert (cut[0].start, cut[-1].stop) == (1003, 1003 + block.nbytes)


def test_what_lies_far_between_is_not_read():
    near, far = Block("f", 0, 8, "float32"), Block("f", 1 << 30, 8, "float32")
    planned = plan({"f": 1 << 31}, [near, far], [], [], Measure.RANGE)
    assert planned.nbytes == 16


def test_blocks_that_overlap_without_end_are_given_up_and_named():
    blocks = [Block("f", i * 4, 4000, "float32") for i in range(1000)]
    planned = plan({"f": 8000}, blocks, [], [], Measure.RANGE)
    assert planned.nbytes <= 2 * 8000
    assert len(planned.unread) == len(blocks) - sum(len(p.blocks) for p in planned.pieces)
