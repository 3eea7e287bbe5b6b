"""Chunks of a tensor: those that fill it, and those that don't, compared with counting every element."""

from __future__ import annotations

import random
from itertools import product

import pytest

from ckpt_rules import Chunk, StoredTensor
from ckpt_rules_dcp.tiling import fault_in

OVERLAP = "has chunks that overlap, which leaves a hole elsewhere"


def tensor(shape, chunks):
    return StoredTensor("float32", tuple(shape), tuple(Chunk(tuple(o), tuple(s)) for o, s in chunks))


def grid(shape, parts):
    """The shape cut into so many parts in each dimension, as evenly as torch.chunk does."""
    sides = []
    for size, count in zip(shape, parts, strict=True):
        step = -(-size // count)
        sides.append([(start, min(step, size - start)) for start in range(0, size, step)])
    return [tuple(zip(*sides_of_one, strict=True)) for sides_of_one in product(*sides)]


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((), [((), ())]),
        ((3,), [((0,), (3,))]),
        ((0, 3), [((0, 0), (0, 3))]),
        ((0, 3), [((0, 0), (0, 3)), ((0, 0), (0, 3))]),
        ((3,), [((0,), (1,)), ((1,), (1,)), ((2,), (1,)), ((3,), (0,))]),
        ((1, 3), [((0, 0), (1, 3)), ((1, 0), (0, 3)), ((1, 0), (0, 3))]),
        ((7, 5), grid((7, 5), (2, 2))),
        ((4, 4, 4), grid((4, 4, 4), (4, 2, 3))),
        ((3, 3), [((0, 0), (1, 2)), ((0, 2), (2, 1)), ((2, 1), (1, 2)), ((1, 0), (2, 1)), ((1, 1), (1, 1))]),
    ],
    ids=["scalar", "whole", "nothing", "nothing twice", "row", "one row of several ranks", "grid", "cube", "pinwheel"],
)
def test_chunks_that_fill_a_tensor(shape, chunks):
    assert fault_in(tensor(shape, chunks)) is None


@pytest.mark.parametrize("parts", [(5_000, 1), (1, 5_000), (50, 100)])
def test_one_of_thousands_that_lies_on_another(parts):
    shape = (10_000, 10_000)
    chunks = grid(shape, parts)
    assert fault_in(tensor(shape, chunks)) is None
    chunks[1234] = chunks[4321]
    assert fault_in(tensor(shape, chunks)) == OVERLAP


def test_two_that_are_shifted_over_their_neighbours():
    """Corners meet where nothing else ends: the volume agrees, and each row does not."""
    chunks = [((0, 0), (2, 2)), ((1, 1), (2, 2)), ((0, 2), (1, 1))]
    assert fault_in(tensor((3, 3), chunks)) == OVERLAP


def test_rows_that_agree_in_number_and_not_in_place():
    assert fault_in(tensor((4,), [((0,), (2,)), ((1,), (2,))])) == OVERLAP
    assert fault_in(tensor((4,), [((0,), (2,))])) == "has 4 elements, but its chunks hold 2"
    assert fault_in(tensor((4,), [((3,), (2,)), ((0,), (2,))])) == "has a chunk that extends past it"
    assert fault_in(tensor((4, 2), [((0,), (4,))])) == "has a chunk that extends past it"


def test_any_chunks_at_all():
    """Those of 2,000 tensors, of which one or two chunks were moved, against a count of every element."""
    rng, seen = random.Random(0), set()
    for _ in range(2_000):
        shape = tuple(rng.randint(1, 4) for _ in range(rng.randint(1, 4)))
        chunks = grid(shape, [rng.randint(1, n) for n in shape])
        for number in rng.sample(range(len(chunks)), min(len(chunks), rng.randint(0, 2))):
            _, sizes = chunks[number]
            chunks[number] = tuple(rng.randint(0, n - s) for n, s in zip(shape, sizes, strict=True)), sizes
        counts = dict.fromkeys(product(*map(range, shape)), 0)
        for offsets, sizes in chunks:
            for place in product(*(range(o, o + s) for o, s in zip(offsets, sizes, strict=True))):
                counts[place] += 1
        filled = set(counts.values()) == {1}
        assert (fault_in(tensor(shape, chunks)) is None) is filled, (shape, chunks)
        seen.add(filled)
    assert seen == {True, False}


def test_very_many_directions_are_not_counted_forever():
    shape = (1_000,) * 40
    chunks = [((0,) * 40, (999,) * 40), ((1,) * 40, (999,) * 40)]
    assert "its chunks hold" in fault_in(tensor(shape, chunks))
    assert fault_in(tensor((2,) * 20, [((0,) * 20, (2,) * 19 + (1,)), ((0,) * 20, (2,) * 19 + (1,))])) == OVERLAP
