"""What layouts ask of the dictionaries in files, and of the counters in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.counters import counter_faults
from ckpt_rules.facts.tensors import Opaque
from ckpt_rules.facts.training import Recorded, is_count

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint

Values = Mapping[object, object]
_INDEX = re.compile(r"-?\d{1,6}")


def dictionary(checkpoint: Checkpoint, path: str) -> Values:
    """The dictionary in a torch or JSON file; FactUnavailable, blocked, where it can't be read or holds anything else."""
    values = checkpoint.files.contents(path)
    if not isinstance(values, Mapping):
        raise FactUnavailable(f"{path} holds no dictionary", path=path, blocked=True)
    return values


def dictionary_or_empty(checkpoint: Checkpoint, path: str) -> Values:
    """The same; empty where it is not available, for whoever leaves it to the rules to report that."""
    try:
        return dictionary(checkpoint, path)
    except FactUnavailable:
        return {}


def options(value: object) -> Values:
    """A dictionary of options: itself, or the attributes of a pickled Namespace or dataclass; else nothing."""
    if isinstance(value, Opaque):
        value = value.state
    return value if isinstance(value, Mapping) else {}


def inside(values: object, key: str) -> object:
    """What lies under keys joined by dots: in dictionaries, in lists by position, in the attributes of objects; else None."""
    for part in key.split("."):
        if isinstance(values, list | tuple):
            index = int(part) if _INDEX.fullmatch(part) else len(values)
            values = values[index] if -len(values) <= index < len(values) else None
        else:
            values = options(values).get(part)
    return values


def sound_counts(recorded: Iterable[Recorded], updates: int | None = None) -> dict[str, int]:
    """Counters by their common names; FactUnavailable, blocked, where one is impossible, which `progress/invalid` reports.

    updates: optimizer updates done, or None where nobody counted them
    """
    recorded = tuple(recorded)
    for counter, _ in counter_faults(recorded, updates):
        raise FactUnavailable(f"{counter.key} in {counter.path} is not valid", path=counter.path, blocked=True)
    return {r.name: int(r.value) for r in recorded if is_count(r.value)}


def updates_of(checkpoint: Checkpoint) -> int | None:
    """Updates that the optimizer has counted; None where it has counted none, or is not available."""
    try:
        return checkpoint.optimizer.updates
    except FactUnavailable:
        return None
