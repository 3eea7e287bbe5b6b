"""The same weights more than once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from ckpt_rules import Checkpoint, Place, Problem, Rule, Severity, TensorInfo, WeightFile, Weights

_BUFFERS = ("position_ids", "inv_freq", "masked_bias", "attn.bias")  # some versions save them, some do not
_NS_PER_HOUR = 3_600 * 1_000_000_000


class DuplicateFormat(Rule):
    """There are two copies of the weights, and they do not agree.

    ## What it checks
    Copies of the weights in another format or under another name (`model.safetensors` beside `pytorch_model.bin` or
    beside shards): the names, shapes and dtypes of their tensors, whether the copy that loaders ignore is much newer
    than the one that they read, and whether other loaders read it: transformers loads `model.safetensors` if there is
    one, vLLM and diffusers use `*.safetensors.index.json`. The finding says which copy differs.

    ## Why it matters
    A trainer that changed its save format writes the new file and leaves the old one, which loaders prefer. Training
    then silently resumes from the weights of another save.

    ## How to repair
    Delete the copy that is out of date.
    """

    id = "files/duplicate-format"
    severity = Severity.WARNING
    tags = frozenset({"files", "load", "resume"})

    newer_by_hours: float = Field(
        default=1.0,
        gt=0,
        description="How many hours newer the copy that loaders ignore may be before it is reported.",
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each copy that disagrees with the one that is loaded."""
        weights = checkpoint.weights
        if not weights.files or weights.broken:
            return
        taken = weights.files[0].path
        for copy in weights.alternatives:
            if not copy or any(f.problems for f in copy) or _is_cut(checkpoint, weights, copy):
                continue
            why = _difference(weights.files, copy) or self._newer(checkpoint, weights.files, copy)
            if why := why or _other_loaders(weights, copy):
                yield Problem(
                    message=f"there are two copies of the weights: loaders read {taken} and ignore {copy[0].path}, "
                    f"{why}",
                    place=Place(path=copy[0].path),
                    help="delete the copy that is out of date",
                    data={"taken": taken, "passed_over": [f.path for f in copy]},
                )

    def _newer(self, checkpoint: Checkpoint, taken: Sequence[WeightFile], copy: Sequence[WeightFile]) -> str | None:
        def newest(files: Sequence[WeightFile]) -> int:
            return max(e.mtime_ns for f in files if (e := checkpoint.listing.get(f.path)))

        hours = (newest(copy) - newest(taken)) / _NS_PER_HOUR
        return f"which is {hours:,.1f} hours newer" if hours > self.newer_by_hours else None


def _is_cut(checkpoint: Checkpoint, weights: Weights, copy: Sequence[WeightFile]) -> bool:
    """Whether shards of it are gone, of which `weights/missing-shard` speaks."""
    shards = [set(index.weight_map.values()) for index in weights.passed_over]
    own = [s for s in shards if {f.path for f in copy} <= s]
    return any(checkpoint.listing.get(name) is None for s in own for name in s)


def _other_loaders(weights: Weights, copy: Sequence[WeightFile]) -> str | None:
    """Which loaders take this copy, where a whole file lies beside the index of shards under the same name."""
    for index in (weights.index, *weights.passed_over):
        if index is None:
            continue
        whole, shards = index.path.removesuffix(".index.json"), set(index.weight_map.values())
        here, there = ({f.path for f in files} for files in (weights.files, copy))
        if here == {whole} != shards and there <= shards:
            return f"which loaders that use {index.path} (vLLM, diffusers) read"
        if there == {whole} != shards and here <= shards:
            return f"which loaders that do not use {index.path} read"
    return None


def _difference(taken: Sequence[WeightFile], copy: Sequence[WeightFile]) -> str | None:
    """How two copies disagree; a tied tensor that one of them leaves out is not disagreement."""
    ours, theirs = _tensors(taken), _tensors(copy)
    for name in ours.keys() & theirs.keys():
        if (ours[name].shape, ours[name].dtype) != (theirs[name].shape, theirs[name].dtype):
            return (
                f"where {name} is {theirs[name].dtype} {list(theirs[name].shape)} instead of "
                f"{ours[name].dtype} {list(ours[name].shape)}"
            )
    for one, other, words in ((ours, theirs, "which lacks"), (theirs, ours, "which additionally contains")):
        shared = {t.storage for n, t in one.items() if n in other}
        alone = sorted(
            n
            for n, t in one.items()
            if n not in other and not n.endswith(_BUFFERS) and (t.storage is None or t.storage not in shared)
        )
        if alone and not _tied(alone, one):
            return f"{words} {alone[0]}" + (f" and {len(alone) - 1:,} more tensors" if len(alone) > 1 else "")
    return None


def _tensors(files: Sequence[WeightFile]) -> dict[str, TensorInfo]:
    return {name: tensor for file in files for name, tensor in file.tensors.items()}


def _tied(names: Sequence[str], tensors: dict[str, TensorInfo]) -> bool:
    """Whether these can be the heads that formats leave out when they share memory with an embedding."""
    shapes = [t.shape for n, t in tensors.items() if n not in names]
    return all(("head" in n or "embed" in n) and tensors[n].shape in shapes for n in names)
