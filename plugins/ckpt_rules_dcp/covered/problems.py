"""How the checks of ranks/chunk-coverage word what they find."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

from ckpt_rules import Place, Problem, StoredItem, StoredTensor

HELP = "resume from an earlier save; write each save to its own directory"
SHOWN, MOST = 3, 20
_T = TypeVar("_T")


def problem(
    message: str,
    path: str,
    item: StoredItem | None = None,
    data: Mapping[str, object] | None = None,
    help_: str = HELP,
    tensor: str | None = None,
) -> Problem:
    """A problem at the place of an item, else about a file, or a name in it."""
    place = Place(path=path, tensor=item.name, offset=item.offset) if item else Place(path=path, tensor=tensor)
    return Problem(message=message, place=place, help=help_, data=dict(data or {}))


def of_tensor(path: str, name: str, tensor: StoredTensor, fault: str) -> Problem:
    """A problem about the chunks of a tensor."""
    return Problem(
        message=f"{name} {list(tensor.shape)} {fault}",
        place=Place(path=path, tensor=name),
        help=HELP,
        data={"shape": list(tensor.shape), "chunks": len(tensor.chunks)},
    )


def bounded(found: Iterable[_T]) -> Iterator[tuple[_T, str]]:
    """The first few, the last of them with words for those that are left out."""
    rest = iter(found)
    shown = list(islice(rest, MOST))
    more = sum(1 for _ in rest)
    for index, one in enumerate(shown, 1):
        yield one, f" ... and {more:,} more like this" if more and index == MOST else ""
