"""Two checkpoints -> what differs between them: files, tensors, and what the training state says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ckpt_rules.comparison import Change, Comparison, FileChange, TensorChange, Tensors
from ckpt_rules.deep.comparing import RAW, Differences, Pair, differences
from ckpt_rules.deep.facts import located_tensors, weight_names
from ckpt_rules.differing_state import state_changes
from ckpt_rules.errors import FactUnavailable, UsageError
from ckpt_rules.facts.files import EntryKind, RootKind
from ckpt_rules.facts.values import Block, Located

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.report import Notice

Both: TypeAlias = "tuple[Checkpoint, Checkpoint]"
_Key: TypeAlias = tuple[str, str]
_EVERY = "*"


class _Tensor(NamedTuple):
    """A tensor and its name: in the model where it is a weight, else in its file."""

    name: str
    weight: bool
    located: Located


def comparison_of(
    both: Both, *, pattern: str = _EVERY, values: bool = True, notices: Sequence[Notice] = ()
) -> Comparison:
    """What differs between two checkpoints.

    pattern: a glob of tensor names; where it is not `*`, only tensors that match are compared, and nothing else
    values:  whether bytes are read

    UsageError where one of them can't be looked into, or no tensor of either matches.
    """
    for checkpoint in both:
        _require_directory(checkpoint)
    everything = pattern == _EVERY
    files = _file_changes(both, values=values) if everything else ()
    return Comparison(
        checkpoints=(both[0].path, both[1].path),
        layouts=(both[0].layout.name, both[1].layout.name),
        pattern=pattern,
        values=values,
        files=files,
        tensors=_tensors(both, pattern, _same_files(both, files) if values and everything else set(), values=values),
        sections=state_changes(both) if everything else {},
        notices=tuple(notices),
    )


def _require_directory(checkpoint: Checkpoint) -> None:
    if checkpoint.files.root.kind is not RootKind.DIRECTORY:
        missing = checkpoint.files.root.kind is RootKind.MISSING
        why = checkpoint.files.root.error or ("there is nothing" if missing else "it is not a checkpoint")
        raise UsageError(f"{checkpoint.path} can't be looked into: {why}")
    try:
        _ = checkpoint.listing
    except FactUnavailable as absent:
        raise UsageError(f"{checkpoint.path} can't be looked into: {absent.reason}") from None


def _files(checkpoint: Checkpoint) -> dict[str, Block]:
    """Every file as a block of bytes, by its path; the only one of a checkpoint that is one file by ''."""
    return {
        "" if checkpoint.files.is_one_file else entry.path: Block(entry.path, 0, entry.size, RAW)
        for entry in checkpoint.listing
        if entry.kind is EntryKind.FILE
    }


def _file_changes(both: Both, *, values: bool) -> tuple[FileChange, ...]:
    one, other = _files(both[0]), _files(both[1])
    alike = {p: (Pair(one[p], other[p], exact=True),) for p in one if p in other and one[p].nbytes == other[p].nbytes}
    found = differences((both[0].files.storage, both[1].files.storage), alike, both[0].reading) if values else {}
    changes = []
    for path in sorted(one.keys() | other.keys()):
        name = (other.get(path) or one[path]).path
        nbytes = (one[path].nbytes if path in one else None, other[path].nbytes if path in other else None)
        result = found.get(path, Differences())
        if result.fault and not result.differing:
            changes.append(FileChange(path=name, change=Change.NOT_COMPARED, nbytes=nbytes, note=result.fault))
        elif nbytes[0] != nbytes[1] or result.differing:
            changes.append(FileChange(path=name, change=_kind(*nbytes), nbytes=nbytes))
    return tuple(changes)


def _kind(before: object, after: object) -> Change:
    if before is None:
        return Change.ADDED
    return Change.REMOVED if after is None else Change.CHANGED


def _same_files(both: Both, changes: Iterable[FileChange]) -> set[str]:
    """Files that are the same in both, byte for byte."""
    return set() if both[0].files.is_one_file and changes else _paths(both[0]) - {change.path for change in changes}


def _paths(checkpoint: Checkpoint) -> set[str]:
    return {entry.path for entry in checkpoint.listing}


def _tensors(both: Both, pattern: str, same: set[str], *, values: bool) -> Tensors:
    one, other = (_named(checkpoint, pattern) for checkpoint in both)
    if pattern != _EVERY and not one and not other:
        raise UsageError(f"no tensor of either checkpoint matches {pattern!r}")
    pairs: dict[_Key, tuple[Pair, ...]] = {}
    notes: dict[_Key, str] = {}
    for key in one.keys() & other.keys() if values else ():
        a, b = one[key].located, other[key].located
        if not _surely_same(a, b, same) and a.shape == b.shape and 0 not in a.shape:
            try:
                pairs[key] = _pairs(a, b)
            except FactUnavailable as absent:
                notes[key] = absent.reason
    found = differences((both[0].files.storage, both[1].files.storage), pairs, both[0].reading)
    changes = tuple(
        change
        for key in (*one, *(k for k in other if k not in one))
        if (change := _change(one.get(key), other.get(key), found.get(key), notes.get(key)))
    )
    relative, cosine = _together(found[key] for key in found if one[key].weight)
    shared = len(one.keys() & other.keys())
    return Tensors(
        counts=(len(one), len(other)),
        same=shared - sum(None not in change.shapes for change in changes),
        changes=changes,
        relative=relative,
        cosine=cosine,
    )


def _named(checkpoint: Checkpoint, pattern: str) -> dict[_Key, _Tensor]:
    """The tensors that match: weights by their names in the model, others by file and name."""
    try:
        names = weight_names(checkpoint)
    except FactUnavailable:
        names = {}
    found: dict[_Key, _Tensor] = {}
    for tensor in located_tensors(checkpoint):
        weight = names.get((tensor.path, tensor.name))
        name = tensor.name if weight is None else weight
        path = "" if checkpoint.files.is_one_file or weight is not None else _whose(tensor.path)
        if fnmatchcase(name, pattern):
            found.setdefault((path, name), _Tensor(name, weight is not None, tensor))
    return found


def _whose(path: str) -> str:
    """Within what the name of a tensor is its own: its file, or the folder of a distributed checkpoint."""
    return path.rpartition("/")[0] if path.endswith(".distcp") else path


def _surely_same(one: Located, other: Located, same: set[str]) -> bool:
    """Whether it lies at the same place of files that are the same."""
    return (
        one._replace(path="") == other._replace(path="") and {b.path for b in one.blocks} <= same and bool(one.blocks)
    )


def _pairs(one: Located, other: Located) -> tuple[Pair, ...]:
    """Their blocks, one against the other; FactUnavailable where the same elements do not lie in the same order."""
    if not one.blocks or not other.blocks:
        raise FactUnavailable("its elements are packed, or do not lie together in the file")
    if one.strides != other.strides:
        raise FactUnavailable("its elements lie in another order")
    before, after = _chunks(one), _chunks(other)
    if before.keys() != after.keys():
        raise FactUnavailable(f"it is stored in other chunks: in {len(one.blocks):,}, then in {len(other.blocks):,}")
    pairs = tuple(Pair(block, after[place]) for place, block in before.items())
    if any(pair.numel != pair._replace(one=pair.other).numel for pair in pairs):
        raise FactUnavailable("its chunks hold other numbers of elements than their shapes say")
    return pairs


def _chunks(tensor: Located) -> Mapping[object, Block]:
    """Its blocks by corner and size; the only one of a tensor in one piece by the whole shape."""
    if len(tensor.blocks) == 1:
        return {tensor.sizes[0] if tensor.sizes else tensor.shape: tensor.blocks[0]}
    return dict(zip(zip(tensor.corners, tensor.sizes, strict=False), tensor.blocks, strict=False))


def _change(
    one: _Tensor | None, other: _Tensor | None, found: Differences | None, note: str | None
) -> TensorChange | None:
    """What became of a tensor, or None where it is the same."""
    a, b = one and one.located, other and other.located
    known = one or other
    if known is None:
        return None
    change = _form_change(a, b)
    if change is None and found is not None and found.differing:
        change = Change.CHANGED
    if found is not None and found.fault:
        change, note = change or Change.NOT_COMPARED, found.fault
    if change is None and note is None:
        return None
    base = TensorChange(
        tensor=known.name,
        change=change or Change.NOT_COMPARED,
        weight=known.weight,
        paths=(a and a.path, b and b.path),
        dtypes=(a and a.dtype, b and b.dtype),
        shapes=(a and a.shape, b and b.shape),
        numel=math.prod(known.located.shape),
        note=note,
    )
    return base if found is None or found.fault else base.model_copy(update=_numbers(found))


def _form_change(one: Located | None, other: Located | None) -> Change | None:
    if one is None or other is None:
        return Change.ADDED if one is None else Change.REMOVED
    if one.shape != other.shape:
        return Change.RESHAPED
    return Change.RECAST if one.dtype != other.dtype else None


def _numbers(found: Differences) -> dict[str, object]:
    if not found.summed:
        return {"differing": found.differing}
    before, after, apart = (math.sqrt(square) for square in found.squares)
    relative, cosine = _together([found])
    return {
        "differing": found.differing,
        "not_finite": found.odd,
        "norms": (before, after) if math.isfinite(before + after) else None,
        "difference": apart if math.isfinite(apart) else None,
        "relative": relative,
        "cosine": cosine,
        "largest": found.largest if math.isfinite(found.largest) else None,
    }


def _together(results: Iterable[Differences]) -> tuple[float | None, float | None]:
    """The norm of the difference by that of the first side, and the cosine; None where it has none."""
    total = sum(results, Differences())
    before, after, apart = (math.sqrt(square) for square in total.squares)
    known = math.isfinite(before) and math.isfinite(after) and math.isfinite(apart)
    relative = apart / before if known and before else None
    cosine = max(-1.0, min(1.0, total.product / before / after)) if known and before and after else None
    return relative, cosine
