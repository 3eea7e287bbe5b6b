"""Rules about an index and the shards that it names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from pydantic import Field

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Place,
    Problem,
    Rule,
    Severity,
    WeightIndex,
    Weights,
    conventions,
    is_count,
)

_SHOWN = 5


def _indexed(checkpoint: Checkpoint) -> list[tuple[Weights, WeightIndex]]:
    """The weights with their index; of a model of several components, each that has one."""
    weights = checkpoint.weights
    found = [(w, w.index) for w in (weights, *weights.parts) if w.index is not None]
    if not found:
        raise FactUnavailable("the weights have no index")
    return found


class MissingShard(Rule):
    """The index lists a shard, or a tensor in a shard, that is missing.

    ## What it checks
    Every file in the index's `weight_map` exists next to it, and contains each tensor that the index lists for it.
    Names that point outside the checkpoint are never followed. It is a warning if the shards are missing but
    transformers ignores the index, because the weights are also there in one file.

    ## Why it matters
    A copy or a save stopped half way. Some loaders fail, some initialise the missing parameters randomly.

    ## How to repair
    Copy the missing shards from where the save was written, or resume from an earlier save.
    """

    id = "weights/missing-shard"
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each shard that is missing or lacks tensors, one for each index that is passed over."""
        yield from _stale(checkpoint)
        try:
            indexed = _indexed(checkpoint)
        except FactUnavailable as unavailable:
            if unavailable.path is None or not _is_no_index(checkpoint, unavailable.path):
                raise
            yield Problem(
                message="the index has no `weight_map` from tensor names to file names",
                place=Place(path=unavailable.path, key="weight_map"),
                help="rewrite the index, or copy it from where the save was written",
            )
            return
        for weights, index in indexed:
            yield from _missing(checkpoint, weights, index)


def _missing(checkpoint: Checkpoint, weights: Weights, index: WeightIndex) -> Iterator[Problem]:
    promised: dict[str, list[str]] = defaultdict(list)
    for tensor, file in index.weight_map.items():
        promised[file].append(tensor)
    read = {f.path: f for f in weights.files}
    for name, tensors in sorted(promised.items()):
        shown = ", ".join(tensors[:_SHOWN]) + (f" and {len(tensors) - _SHOWN:,} more" if len(tensors) > _SHOWN else "")
        if _leads_out(name):
            yield _problem(index, name, f"the index names '{name}', which points outside the checkpoint")
        elif checkpoint.listing.get(name) is None:
            what = f"{name} is missing; the index places {len(tensors):,} tensors there: {shown}"
            yield _problem(index, name, what, path=name)
        elif name in read and not any(p.fatal for p in read[name].problems):
            absent = [t for t in tensors if t not in read[name].tensors]
            if absent:
                more = f" and {len(absent) - _SHOWN:,} more" if len(absent) > _SHOWN else ""
                what = (
                    f"the shard lacks {len(absent):,} of the {len(tensors):,} tensors that {index.path} lists for it: "
                )
                yield _problem(index, name, what + ", ".join(absent[:_SHOWN]) + more, path=name, tensor=absent[0])


def _stale(checkpoint: Checkpoint) -> Iterator[Problem]:
    """Indexes of an earlier save beside the one file that transformers takes; loaders that go by them stop."""
    try:
        weights = checkpoint.weights
    except FactUnavailable:
        return
    for each in (weights, *weights.parts):
        for index in each.passed_over:
            shards, whole = set(index.weight_map.values()), index.path.removesuffix(".index.json")
            gone = sorted(s for s in shards if checkpoint.listing.get(s) is None)
            if gone and [f.path for f in each.files] == [whole]:
                are = "is" if len(gone) == 1 else "are"
                yield Problem(
                    message=f"the index names {len(shards):,} shards, but {len(gone):,} of them {are} missing "
                    f"({gone[0]}); transformers loads {whole} instead, loaders that use the index (vLLM, "
                    "diffusers) fail",
                    place=Place(path=index.path),
                    help=f"delete the index if {whole} contains the intended weights",
                    severity=Severity.WARNING,
                    data={"shards": sorted(shards)[:100], "missing": gone[:100]},
                )


def _is_no_index(checkpoint: Checkpoint, path: str) -> bool:
    """Whether a file is the index and valid JSON: other rules speak of what can't be parsed."""
    if not path.endswith(".index.json") or path not in {e.path for e in checkpoint.files.of_format("json")}:
        return False
    return not checkpoint.files.json(path).problems


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _problem(
    index: WeightIndex, name: str, message: str, *, path: str | None = None, tensor: str | None = None
) -> Problem:
    return Problem(
        message=message,
        place=Place(path=path or index.path, tensor=tensor),
        help="copy the shard from where the save was written, or resume from an earlier save",
        data={"index": index.path, "shard": name},
    )


class Unindexed(Rule):
    """Weights on disk are not listed in the index.

    ## What it checks
    Weight files next to an index that it does not list, and tensors in its shards that it leaves out. It is an error if
    a whole shard of the index's own numbered family is left out.

    ## Why it matters
    What the index does not list is never loaded. Loaders that use file names instead mix the stray file in.

    ## How to repair
    Remove files of other saves; if the index is out of date, rewrite it.
    """

    id = "weights/unindexed"
    severity = Severity.WARNING
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each stray file, one for each shard with stray tensors."""
        for weights, index in _indexed(checkpoint):
            yield from _strays(weights, index)


def _strays(weights: Weights, index: WeightIndex) -> Iterator[Problem]:
    counts = {m[1] for n in weights.expected if (m := re.search(r"-of-(\d+)\.", n))}
    for file in weights.unindexed:
        own = bool(conventions.weight_files.SHARD.fullmatch(file.path)) and any(
            f"-of-{c}." in file.path for c in counts
        )
        what = f"a shard of the same family, with {len(file.tensors):,} tensors," if own else "the file"
        yield Problem(
            message=f"{what} is not listed in {index.path}, so it is not loaded",
            place=Place(path=file.path),
            help="rewrite the index" if own else "remove it, or rewrite the index",
            severity=Severity.ERROR if own else None,
            data={"index": index.path, "tensors": len(file.tensors)},
        )
    for file in weights.files:
        stray = [n for n in file.tensors if n not in index.weight_map]
        if stray:
            more = f" and {len(stray) - _SHOWN:,} more" if len(stray) > _SHOWN else ""
            yield Problem(
                message=f"{len(stray):,} tensors are not listed in {index.path}: {', '.join(stray[:_SHOWN])}{more}",
                place=Place(path=file.path, tensor=stray[0]),
                help="rewrite the index",
                data={"index": index.path, "tensors": len(stray)},
            )


class IndexTotal(Rule):
    """The total size in the index differs from the size of the tensors.

    ## What it checks
    `metadata.total_size` of the index against the bytes of all tensors in its shards. An index without it is fine.

    ## Why it matters
    No loader reads the number, so nothing fails; but the index was not written together with these shards.

    ## How to repair
    Check whether the shards are from one save, then rewrite the index.
    """

    id = "weights/index-total"
    severity = Severity.WARNING
    tags = frozenset({"load"})

    tolerance: int = Field(default=0, ge=0, description="Allowed difference between the two, in bytes.")

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each index."""
        for weights, index in _indexed(checkpoint):
            yield from self._one(weights.complete(), index)

    def _one(self, weights: Weights, index: WeightIndex) -> Iterator[Problem]:
        if index.total_size is None:
            return
        if not is_count(index.total_size):
            yield Problem(
                message=f"total_size is {str(index.total_size)[:60]!r}, which is not a number of bytes",
                place=Place(path=index.path, key="metadata.total_size"),
                help="rewrite the index",
            )
        elif all(abs(index.total_size - nbytes(weights)) > self.tolerance for nbytes in (_each, _once)):
            yield Problem(
                message=f"the index gives a total size of {int(index.total_size):,} bytes, but its tensors take "
                f"{weights.nbytes:,}",
                place=Place(path=index.path, key="metadata.total_size"),
                help="check whether the shards are from one save, then rewrite the index",
                data={"announced": int(index.total_size), "found": weights.nbytes},
            )


def _each(weights: Weights) -> int:
    """Bytes of all tensors."""
    return weights.nbytes


def _once(weights: Weights) -> int:
    """Bytes of all tensors, those that share a storage counted once."""
    return sum({(f.path, t.storage or n): t.nbytes for f, n, t in weights.items()}.values())


class DuplicateTensor(Rule):
    """One tensor is stored in two files.

    ## What it checks
    The names of all tensors in the files that are loaded together.

    ## Why it matters
    The file that is read last wins, and which one that is depends on the loader. The two values are seldom the same.

    ## How to repair
    Find out which file belongs to this save, and rewrite the weights from it.
    """

    id = "weights/duplicate-tensor"
    severity = Severity.WARNING
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each pair of files that share names."""
        first: dict[str, str] = {}
        shared: dict[tuple[str, str], list[str]] = defaultdict(list)
        weights = checkpoint.weights
        if (
            len(weights.files) > 1
            and weights.index is None
            and not all(map(conventions.weight_files.SHARD.fullmatch, (f.path for f in weights.files)))
        ):
            raise FactUnavailable("files with other names may contain separate models")
        if len(set().union(*(f.tensors for f in weights.files))) == sum(len(f.tensors) for f in weights.files):
            return
        for file, name, _ in weights.items():
            if name in first:
                shared[first[name], file.path].append(name)
            first.setdefault(name, file.path)
        for (one, other), names in sorted(shared.items()):
            more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
            yield Problem(
                message=f"{len(names):,} tensors are also in {one}: {', '.join(names[:_SHOWN])}{more}",
                place=Place(path=other, tensor=names[0]),
                help="find out which file belongs to this save, and write the weights again",
                data={"files": [one, other], "tensors": len(names)},
            )
