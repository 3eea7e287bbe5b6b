"""Two files against each other: what differs between the same tensors, in any dtype, at any length."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

from ckpt_rules import diff
from ckpt_rules.comparison import Change
from ckpt_rules.deep import comparing

SMALL = 64 << 10


@pytest.fixture
def compare(tmp_path):
    """The change of the one tensor that two files hold; None where it is the same."""

    def make(one, other, save=torch.save, name="w.pt", **options):
        for folder, tensor in (("a", one), ("b", other)):
            (tmp_path / folder).mkdir(exist_ok=True)
            save({"w": tensor}, tmp_path / folder / name)
        found = diff(tmp_path / "a", tmp_path / "b", **options).tensors
        assert found.counts == (1, 1)
        return found.changes[0] if found.changes else None

    return make


@pytest.fixture
def in_small_parts(monkeypatch):
    """Tensors of a few hundred kilobytes are read in several parts, each in several chunks."""
    monkeypatch.setattr(comparing, "PIECE_NBYTES", SMALL)
    monkeypatch.setattr(comparing, "CHUNK_NBYTES", SMALL // 8)


DTYPES = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "int64",
    "int8",
    "uint8",
    "complex64",
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_numbers_are_those_that_torch_gives(compare, dtype):
    torch.manual_seed(0)
    one = (torch.randn(40, 30, dtype=torch.complex64 if dtype == "complex64" else torch.float32) * 3).to(
        getattr(torch, dtype)
    )
    other = one.clone()
    other[3, 4], other[39, 29] = 5, 7
    found = compare(one, other)
    a, b = ((torch.view_as_real(t) if t.is_complex() else t).double().flatten() for t in (one, other))
    assert (found.change, found.differing) == (Change.CHANGED, int((a != b).sum()))
    assert found.norms == pytest.approx((float(a.norm()), float(b.norm())))
    assert found.difference == pytest.approx(float((a - b).norm()))
    assert found.relative == pytest.approx(float((a - b).norm() / a.norm()))
    assert found.cosine == pytest.approx(float(a @ b / a.norm() / b.norm()))
    assert found.largest == float((a - b).abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_values_are_no_change(compare, dtype):
    tensor = torch.arange(100).to(getattr(torch, dtype))
    assert compare(tensor, tensor.clone()) is None


@pytest.mark.parametrize("place", [0, 50_000, 99_999])
@pytest.mark.parametrize("jobs", [1, 2])
def test_one_value_in_many_parts_is_found_and_the_norms_are_those_of_the_whole(compare, in_small_parts, place, jobs):
    torch.manual_seed(1)
    one = torch.randn(100_000)
    other = one.clone()
    other[place] += 1
    found = compare(one, other, jobs=jobs)
    assert (found.differing, found.largest) == (1, pytest.approx(1, abs=1e-6))
    assert found.norms[0] == pytest.approx(float(one.double().norm()))
    assert found.relative == pytest.approx(found.difference / found.norms[0])


def test_on_an_executor_of_ones_own_it_is_the_same(compare, in_small_parts):
    with ThreadPoolExecutor(3) as executor:
        found = compare(torch.zeros(50_000), torch.ones(50_000), executor=executor)
    assert (found.differing, found.norms, found.relative, found.cosine) == (50_000, (0, math.sqrt(50_000)), None, None)


class TestNotFinite:
    def test_the_same_nan_and_infinities_are_no_change(self, compare):
        odd = torch.tensor([math.nan, math.inf, -math.inf, 1.0])
        payload = odd.clone()
        payload[3] = 2
        found = compare(odd, payload)
        assert (found.differing, found.not_finite, found.difference, found.norms) == (1, 3, 1, (1, 2))

    def test_a_nan_that_appeared_is_a_change_and_in_no_sum(self, compare):
        one, other = torch.ones(10), torch.ones(10)
        other[7] = math.nan
        found = compare(one, other)
        assert (found.differing, found.not_finite, found.difference, found.relative, found.cosine) == (
            1,
            1,
            0,
            0,
            pytest.approx(1),
        )

    def test_squares_beyond_the_largest_number_have_no_norm(self, compare):
        found = compare(torch.tensor([1e300], dtype=torch.float64), torch.tensor([-1e300], dtype=torch.float64))
        assert (found.differing, found.norms, found.relative, found.largest) == (1, None, None, 2e300)


def test_whole_numbers_are_counted_beyond_what_floating_point_tells_apart(compare):
    assert compare(torch.tensor([2**62]), torch.tensor([2**62 + 1])).differing == 1


def test_another_dtype_is_compared_by_value(compare):
    torch.manual_seed(2)
    one = torch.randn(64, 64)
    found = compare(one, one.bfloat16())
    assert (found.change, found.dtypes) == (Change.RECAST, ("float32", "bfloat16"))
    assert 0 < found.relative < 2**-8
    assert compare(one.bfloat16(), one.bfloat16().float()).differing == 0


def test_another_shape_is_named_and_not_compared(compare):
    found = compare(torch.zeros(4, 6), torch.zeros(6, 4))
    assert (found.change, found.shapes, found.differing) == (Change.RESHAPED, ((4, 6), (6, 4)), None)


def test_another_order_of_the_elements_is_not_compared(compare):
    found = compare(torch.arange(12).reshape(3, 4), torch.arange(12).reshape(4, 3).t())
    assert (found.change, found.note) == (Change.NOT_COMPARED, "its elements lie in another order")


def test_no_elements_are_the_same(compare):
    assert compare(torch.zeros(0, 3), torch.zeros(0, 3), save=save_file, name="model.safetensors") is None


def test_the_first_format_is_compared_with_another(tmp_path):
    weights = {"w": torch.arange(6.0), "b": torch.ones(2)}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    save_file(weights, tmp_path / "a" / "model.safetensors")
    torch.save(weights | {"b": torch.tensor([1.0, 3.0])}, tmp_path / "b" / "pytorch_model.bin")
    found = diff(tmp_path / "a", tmp_path / "b").tensors
    assert [(c.tensor, c.weight, c.relative, c.paths) for c in found.changes] == [
        ("b", True, pytest.approx(math.sqrt(2)), ("model.safetensors", "pytorch_model.bin"))
    ]
    assert found.same == 1


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_distributed_checkpoint_is_compared_chunk_by_chunk(tmp_path):
    weight = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    for folder, tensor in (("a", weight), ("b", weight + 1)):
        dcp.save({"w": tensor, "same": torch.ones(3)}, checkpoint_id=tmp_path / folder, no_dist=True)
    (found,) = diff(tmp_path / "a", tmp_path / "b").tensors.changes
    assert (found.tensor, found.differing, found.difference) == ("w", 24, pytest.approx(math.sqrt(24)))


def test_a_file_that_is_cut_while_it_is_read_is_not_compared(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        torch.save({"w": torch.ones(1000)}, tmp_path / folder / "w.pt")
    monkeypatch.setattr(comparing, "read_chunk", lambda source, at, buffer: buffer[:0])
    found = diff(tmp_path / "a", tmp_path / "b")
    assert [(f.path, f.change, f.note) for f in found.files] == [
        ("w.pt", Change.NOT_COMPARED, "it is shorter than when it was listed")
    ]
    assert found.exit_code == 2
