"""One flipped bit of every kind in every format: who sees it, as docs/integrity.md tells."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bit_flips import rows, table, written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return list(rows(tmp_path_factory.mktemp("flips")))


def test_a_sealed_checkpoint_hides_no_flip(found):
    assert [(r.kind.format, r.kind.what) for r in found if r.sealed < len(r.kind.bits)] == []


@pytest.mark.parametrize("file_format", ["torch.save", "distributed checkpoint"])
def test_where_there_are_checksums_every_bit_of_a_number_is_seen(found, file_format):
    numbers = [
        r for r in found if r.kind.format == file_format and ("weight" in r.kind.what or "moment" in r.kind.what)
    ]
    assert len(numbers) == 4
    assert all(r.seen == len(r.kind.bits) and "integrity/crc" in r.rules for r in numbers)


def test_where_there_are_none_the_highest_exponent_bit_of_a_weight_is_seen(found):
    (row,) = [r for r in found if (r.kind.format, r.kind.what) == ("safetensors", "highest exponent bit of a weight")]
    assert (row.seen, row.rules) == (3, ("numerics/huge",))


def test_the_page_tells_what_was_found(found):
    """`python -m tests.deep.bit_flips` writes it again."""
    assert written() == table(found)
