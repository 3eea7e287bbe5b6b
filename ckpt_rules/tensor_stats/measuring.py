"""Measures tensors."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from ckpt_rules.checkpoint import Checkpoint
from ckpt_rules.deep.facts import located_tensors
from ckpt_rules.deep.missing import unlocated
from ckpt_rules.deep.passing import read_bytes
from ckpt_rules.errors import UsageError
from ckpt_rules.facts.files import RootKind
from ckpt_rules.facts.values import BytesRead, Located, Measure, Measured, Wanted
from ckpt_rules.report import Notice
from ckpt_rules.tensor_stats.model import CheckpointStats, TensorStats


def stats_of(checkpoint: Checkpoint, glob: str = "*", notices: Sequence[Notice] = ()) -> CheckpointStats:
    """The values of each tensor whose name matches; no other bytes are read.

    UsageError where the path is not a directory that can be listed, or no tensor matches.
    """
    if checkpoint.files.root.kind is not RootKind.DIRECTORY:
        raise UsageError(f"{checkpoint.path} can't be looked into: {_no_directory(checkpoint)}")
    located = [t for t in located_tensors(checkpoint) if fnmatchcase(t.name, glob)]
    if not located:
        raise UsageError(_no_match(checkpoint, glob))
    read = read_bytes(checkpoint, Wanted(Measure.ALL), checkpoint.reading, located)
    measured = {(m.tensor.path, m.tensor.name): m for m in read.measured(located)}
    return CheckpointStats(
        checkpoint=checkpoint.path,
        tensors=tuple(_stats(t, measured.get((t.path, t.name)), read) for t in located),
        nbytes=read.nbytes,
        faults={**checkpoint.fact(unlocated), **read.unread},
        notices=tuple(notices),
    )


def _no_directory(checkpoint: Checkpoint) -> str:
    return checkpoint.files.root.error or (
        "there is nothing" if checkpoint.files.root.kind is RootKind.MISSING else "it is not a file or directory"
    )


def _no_match(checkpoint: Checkpoint, glob: str) -> str:
    names = [t.name for t in located_tensors(checkpoint)]
    if not names:
        return (
            f"{checkpoint.path} holds no tensor that can be read; 'ckpt-rules verify' says what is wrong with its files"
        )
    return f"none of the {len(names):,} tensors matches {glob!r}; the first is {names[0]!r}"


def _stats(tensor: Located, measured: Measured | None, read: BytesRead) -> TensorStats:
    numel = 1
    for size in tensor.shape:
        numel *= size
    known = TensorStats(path=tensor.path, tensor=tensor.name, dtype=tensor.dtype, shape=tensor.shape, numel=numel)
    if measured is None:
        return known.model_copy(update={"unread": _why_unread(tensor, numel, read)})
    values = measured.values
    return known.model_copy(
        update={
            "nan": values.nan,
            "inf": values.above + values.below,
            "first": measured.first.index if measured.first else None,
            "smallest": values.smallest,
            "largest": values.largest,
            "mean": values.mean,
            "peak": values.peak,
            "norm": values.norm,
            "zeros": values.zero_share,
            "constant": values.constant,
        }
    )


def _why_unread(tensor: Located, numel: int, read: BytesRead) -> str:
    if not numel:
        return "it has no elements"
    if not tensor.blocks:
        return "its elements are packed, or do not lie together in the file"
    faults = [read.unread[b.path] for b in tensor.blocks if b.path in read.unread]
    return faults[0] if faults else "its bytes overlap with those of too many others"
