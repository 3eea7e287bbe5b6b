"""Mutants by number: format, seed and number give the same bytes every time."""

from __future__ import annotations

from random import Random

from tests.differential.mutate_bytes import mutate_bytes
from tests.differential.mutate_pickle import mutate_pickle
from tests.differential.mutate_text import mutate_header, mutate_text
from tests.differential.mutate_zip import mutate_data_pkl, mutate_zip
from tests.differential.seeds import seeds, split_legacy


def mutant(file_format: str, seed: int, number: int) -> bytes:
    """One mutant."""
    rng = Random(f"{file_format} {seed} {number}")
    data, other = (rng.choice(seeds(file_format)).data for _ in range(2))
    if rng.random() < 0.3:
        return mutate_bytes(rng, data, other)
    if file_format == "safetensors":
        return mutate_header(rng, data)
    if file_format == "json":
        return mutate_text(rng, data)
    if file_format == "legacy":
        return _mutate_legacy(rng, data, other)
    return rng.choice((mutate_zip, mutate_data_pkl))(rng, data, other)


def _mutate_legacy(rng: Random, data: bytes, other: bytes) -> bytes:
    pickles = list(split_legacy(data))
    at = rng.choice((0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4))
    pickles[at] = mutate_pickle(rng, pickles[at], rng.choice((split_legacy(other)[3], split_legacy(other)[at])))
    return b"".join(pickles)
