"""Facts that lie in the bytes: where every tensor is, and what one pass over all of them finds.

What computes them is imported when first asked for: it needs NumPy, and a verification that reads headers alone does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpt_rules.checkpoint import Checkpoint
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.values import BytesRead, Located, Measure, Measured, Wanted


class _Pass:
    """What reading every byte once has found so far."""

    def __init__(self) -> None:
        self.found: BytesRead | None = None


def _pass(_: Checkpoint) -> _Pass:
    return _Pass()


def read_all(checkpoint: Checkpoint, wanted: Wanted) -> BytesRead:
    """What reading every byte once has found; they are read again only for what was not wanted before."""
    from ckpt_rules.deep.passing import read_bytes

    passed = checkpoint.fact(_pass)
    if passed.found is None or not passed.found.wanted.includes(wanted):
        more = wanted | passed.found.wanted if passed.found else wanted
        passed.found = read_bytes(checkpoint, more, checkpoint.reading)
        for path, words in passed.found.unread.items():
            checkpoint.files.read_errors.setdefault(path, words)
    return passed.found


def located_tensors(checkpoint: Checkpoint) -> tuple[Located, ...]:
    """Every tensor in the files, weights or not, and where its elements lie; one with several names comes by each."""
    from ckpt_rules.deep.locate import find_tensors

    return checkpoint.fact(find_tensors)


def measured_tensors(checkpoint: Checkpoint, measures: Measure) -> Iterator[Measured]:
    """Every tensor of `located_tensors` with these measures of its values; see `read_all`.

    One that could not be read, or that has no elements, does not come.
    """
    return read_all(checkpoint, Wanted(measures)).measured(located_tensors(checkpoint))


def unread_files(checkpoint: Checkpoint, wanted: Wanted) -> dict[str, str]:
    """Files that `read_all` could not look at as a whole for what is wanted, and why: their answer is not known."""
    from ckpt_rules.deep.missing import missed

    return missed(checkpoint, wanted, read_all(checkpoint, wanted))


def weight_names(checkpoint: Checkpoint) -> Mapping[tuple[str, str], str]:
    """The name in the model of each tensor of `located_tensors` that is a weight, by its file and the name that it has there."""
    from ckpt_rules.deep.naming import names_of_weights

    return checkpoint.fact(names_of_weights)


def measured_weights(checkpoint: Checkpoint, measures: Measure) -> Iterator[tuple[str, Measured]]:
    """The weights, by their names in the model, with these measures of their values; see `measured_tensors`.

    FactUnavailable where there are no weights, or none whose values could be read.
    """
    names = weight_names(checkpoint)
    found = False
    for tensor in measured_tensors(checkpoint, measures):
        name = names.get((tensor.tensor.path, tensor.tensor.name))
        if name is not None:
            found = True
            yield name, tensor
    if not found:
        raise FactUnavailable("there are no weights whose values could be read")
