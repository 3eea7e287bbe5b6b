"""The values of a chunk of memory, by dtype: what torch says of the same bytes."""

from __future__ import annotations

import math

import pytest
import torch

from ckpt_rules import Measure
from ckpt_rules.deep.kernels import cast, itemsize, measure
from ckpt_rules.facts.values import Values, joined

EVERYTHING = Measure.ALL
FLOATS = ["float64", "float32", "float16", "bfloat16"]
EIGHT_BITS = ["float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool"]
COMPLEX = ["complex64", "complex128"]


def raw(tensor):
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def measured(tensor, wanted=EVERYTHING):
    return measure(raw(tensor), str(tensor.dtype).removeprefix("torch."), wanted)


def every_code_or_many(dtype):
    kind = getattr(torch, dtype)
    if dtype.startswith("float8"):
        return torch.arange(256, dtype=torch.uint8).view(kind)
    if dtype in ("float16", "bfloat16"):
        return torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(kind)
    if kind.is_floating_point or kind.is_complex:
        return torch.randn(1000, dtype=kind, generator=torch.Generator().manual_seed(1))
    return torch.randint(0, 2 if dtype == "bool" else 100, (1000,)).to(kind)


@pytest.mark.parametrize("dtype", [*FLOATS, *EIGHT_BITS, *INTEGERS, *COMPLEX])
def test_every_measure_is_what_torch_computes(dtype):
    tensor = every_code_or_many(dtype)
    values = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).double().flatten()
    finite = values[torch.isfinite(values)]
    found = measured(tensor)
    assert found.numel == values.numel()
    assert (found.nan, found.above, found.below) == (
        int(values.isnan().sum()),
        int((values == math.inf).sum()),
        int((values == -math.inf).sum()),
    )
    odd = (~torch.isfinite(values)).nonzero()
    assert found.first == (int(odd[0]) if len(odd) else None)
    assert (found.smallest, found.largest) == (float(finite.min()), float(finite.max()))
    assert found.total == pytest.approx(float(finite.sum()), rel=1e-9, abs=1e-6)
    assert found.norm == pytest.approx(float(finite.norm()), rel=1e-9)
    assert found.zeros == int((values == 0).sum())


@pytest.mark.parametrize("dtype", [*FLOATS, *EIGHT_BITS, "complex64"])
@pytest.mark.parametrize("at", [0, 2048, 4095])
def test_nan_is_found_at_the_first_a_middle_and_the_last_element(dtype, at):
    kind = getattr(torch, dtype)
    tensor = torch.ones(4096, dtype=torch.complex64 if kind.is_complex else torch.float32).to(kind)
    tensor[at] = math.nan
    found = measured(tensor)
    assert (found.nan, found.non_finite) == (1, 1)
    assert found.first == (2 * at if kind.is_complex else at)


@pytest.mark.parametrize(
    ("values", "smallest", "largest"),
    [
        ([1.0, 3.0], 1.0, 3.0),
        ([-1.0, -3.0], -3.0, -1.0),
        ([-2.0, 5.0], -2.0, 5.0),
        ([0.0, -0.0], 0.0, 0.0),
        ([-math.inf, 2.0, math.nan], 2.0, 2.0),
        ([math.inf, -4.0], -4.0, -4.0),
    ],
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_range_is_that_of_the_finite_values_of_either_sign(values, smallest, largest, dtype):
    found = measured(torch.tensor(values, dtype=getattr(torch, dtype)))
    assert (found.smallest, found.largest) == (smallest, largest)


@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_finite_has_no_range(dtype):
    found = measured(torch.full((7,), math.nan, dtype=getattr(torch, dtype)))
    assert (found.nan, found.smallest, found.largest, found.peak, found.mean) == (7, None, None, None, None)


def test_big_endian_numbers_are_turned_round():
    data = torch.tensor([1.5, -2.0]).numpy().astype(">f4").tobytes()
    assert (
        measure(memoryview(data), "float32", EVERYTHING, big_endian=True)[:8] == measured(torch.tensor([1.5, -2.0]))[:8]
    )


def test_what_was_not_asked_for_is_not_computed():
    assert measured(torch.ones(8), Measure.NONE) == Values(8)
    assert measured(torch.ones(8), Measure.ZEROS) == Values(8, zeros=0)
    assert measured(torch.ones(8), Measure.RANGE) == Values(8, smallest=1.0, largest=1.0)


@pytest.mark.parametrize("dtype", ["quint4x2", "bits8", "float4_e2m1fn_x2"])
def test_packed_dtypes_are_not_looked_at(dtype):
    assert itemsize(dtype) is None


def test_parts_joined_are_the_whole():
    tensor = torch.randn(1000, generator=torch.Generator().manual_seed(2))
    tensor[[700, 900]] = torch.tensor([math.nan, -math.inf])
    whole, parts = measured(tensor), joined(measured(part) for part in tensor.split(300))
    assert parts[:7] == whole[:7]
    assert parts.total == pytest.approx(whole.total)
    assert parts.squares == pytest.approx(whole.squares)
    assert parts.first == 700
    assert joined([]) == Values(0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_cast_rounds_as_torch_does(dtype):
    codes = torch.randint(-(2**31), 2**31 - 1, (100_000,), generator=torch.Generator().manual_seed(5)).to(torch.int32)
    ties = torch.tensor(
        [0x3F808000, 0x3F818000, 0x3F80FFFF, 0x7F7FFFFF], dtype=torch.int32
    )  # half-way, and to infinity
    values = torch.cat([codes.view(torch.float32), ties.view(torch.float32), torch.randn(1000)])
    values = values[~values.isnan()]
    assert bytes(cast(raw(values), "float32", dtype)) == bytes(raw(values.to(getattr(torch, dtype))))


def test_nan_stays_nan_in_a_cast():
    signalling = torch.tensor([0x7F800001], dtype=torch.int32).view(torch.float32)
    assert torch.frombuffer(bytearray(cast(raw(signalling), "float32", "bfloat16")), dtype=torch.bfloat16).isnan().all()


def test_what_can_not_be_cast_says_so():
    with pytest.raises(ValueError, match="float64 can't be cast to float32"):
        cast(raw(torch.ones(2, dtype=torch.float64)), "float64", "float32")
