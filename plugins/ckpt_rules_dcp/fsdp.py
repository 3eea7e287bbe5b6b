"""What Accelerate's `save_fsdp_model` and `save_fsdp_optimizer` write, whether `save_state` or the Trainer called them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ckpt_rules import (
    DTYPE_BITS,
    TO_RESUME_OR_LOAD,
    Backend,
    Checkpoint,
    EntryKind,
    FactUnavailable,
    Opaque,
    OptimizerState,
    RankFiles,
    Ranks,
    Recorded,
    TensorInfo,
    WeightFile,
    Weights,
    flatten,
    rank_of_shard,
    state_dicts,
)
from ckpt_rules_dcp import saved
from ckpt_rules_dcp.nodes import whole_metadata
from ckpt_rules_dcp.saved import METADATA

_MODEL = re.compile(r"pytorch_model_fsdp(?:_(?P<number>\d{1,3}))?(?:_rank(?P<rank>\d{1,6}))?(?P<file>\.bin)?")
_OPTIMIZER = re.compile(r"optimizer(?:_(?P<number>\d{1,3}))?(?:_rank(?P<rank>\d{1,6}))?(?P<file>\.bin)?")
_FLAT = "_flat_param"
"""What FSDP 1 calls the parameters of a module that it has flattened into one (LOCAL_STATE_DICT)."""

_MODEL_STOPS = "the rank stops with FileNotFoundError: its piece of the model is only there"
_OPTIMIZER_STOPS = "the rank stops with FileNotFoundError: its piece of the optimizer is only there"


@dataclass(frozen=True, slots=True)
class Part:
    """One model or one optimizer, in whichever form it was saved.

    folder: a directory of torch.distributed.checkpoint (SHARDED_STATE_DICT), or None
    file:   a file with the whole of it (FULL_STATE_DICT), or None
    ranks:  files with a piece each (LOCAL_STATE_DICT, or `use_dcp=False`), by rank
    """

    folder: str | None = None
    file: str | None = None
    ranks: Mapping[int, str] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files to read it from, that of the first rank first."""
        if self.folder:
            return (f"{self.folder}/{METADATA}",)
        return (self.file,) if self.file else tuple(self.ranks[r] for r in sorted(self.ranks))


@dataclass(frozen=True, slots=True)
class Parts:
    """Models and optimizers by their number, in the order in which they were prepared."""

    models: Mapping[int, Part] = field(default_factory=dict)
    optimizers: Mapping[int, Part] = field(default_factory=dict)

    @property
    def are_any(self) -> bool:
        """Whether FSDP wrote here; a whole optimizer alone may be anyone's."""
        return bool(self.models) or any(p.folder or p.ranks for p in self.optimizers.values())


def find_parts(checkpoint: Checkpoint) -> Parts:
    """Models and optimizers at the top of the checkpoint, told by their names."""
    models: dict[int, Part] = {}
    optimizers: dict[int, Part] = {}
    for entry in checkpoint.listing:
        for pattern, found in ((_MODEL, models), (_OPTIMIZER, optimizers)):
            match = pattern.fullmatch(entry.path)
            if match and (entry.kind is EntryKind.DIRECTORY) is not bool(match["file"]):
                number = int(match["number"] or 0)
                part = _with(found.get(number, Part()), match, entry.path)
                if part.paths:
                    found[number] = part
    return Parts(models, optimizers)


def _with(part: Part, match: re.Match[str], path: str) -> Part:
    if match["rank"]:
        return replace(part, ranks={**part.ranks, int(match["rank"]): path})
    if match["file"]:
        return replace(part, file=path)
    return replace(part, folder=path) if match["number"] else part


def first_paths(parts: Parts, kind: str, number: int) -> tuple[str, ...]:
    """Where the model or optimizer of a number is looked for, the form in which its siblings were saved first."""
    stem, own = ("pytorch_model_fsdp", parts.models) if kind == "model" else ("optimizer", parts.optimizers)
    tail = f"_{number}" if number else ""
    forms = {
        "folder": f"{stem}_{number}/{METADATA}",
        "file": f"{stem}{tail}.bin",
        "ranks": f"{stem}_{number}_rank0.bin",
    }
    siblings = [*own.values(), *parts.models.values(), *parts.optimizers.values()]
    first = next((name for p in siblings for name in forms if getattr(p, name)), "folder")
    return (forms.pop(first), *forms.values())


def missing_parts(parts: Parts) -> Iterator[tuple[str, int]]:
    """Models and optimizers that a loader asks for and that are not there: `model` or `optimizer`, and the number.

    Of each kind there is a first, and none is left out; an optimizer is loaded together with the model of its number.
    """
    last = max(parts.optimizers, default=0)
    for kind, own, end in (
        ("model", parts.models, max(last, *parts.models, 0)),
        ("optimizer", parts.optimizers, last),
    ):
        yield from ((kind, number) for number in range(end + 1) if number not in own)


def uncommitted(checkpoint: Checkpoint, parts: Parts) -> list[tuple[str, str]]:
    """Files that torch.distributed.checkpoint writes last and that are not there: `model` or `optimizer`, and the path."""
    kinds = (("model", parts.models), ("optimizer", parts.optimizers))
    marks = ((kind, part.paths[0]) for kind, own in kinds for _, part in sorted(own.items()) if part.folder)
    return [(kind, path) for kind, path in marks if checkpoint.listing.get(path) is None]


@dataclass(frozen=True, slots=True)
class Fsdp(Backend):
    """Models and optimizers that FSDP saved; nothing where it took no part."""

    own_loader: ClassVar[tuple[str, ...]] = (
        "*.distcp", METADATA, "pytorch_model_fsdp_[0-9]*_rank*.bin", "optimizer_[0-9]*_rank*.bin",
    )  # fmt: skip

    parts: Parts

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.parts.models or self.parts.optimizers)

    def weights(self, checkpoint: Checkpoint) -> Weights | None:
        """Every model at its full shapes; the tensors of any but the first are led by the name of its file."""
        files: list[WeightFile] = []
        for number, part in sorted(self.parts.models.items()):
            file = _weights(checkpoint, part)
            lead = f"pytorch_model_fsdp_{number}." if files else ""
            files.append(replace(file, tensors={f"{lead}{name}": t for name, t in file.tensors.items()}))
        return Weights(tuple(files)) if files else None

    def optimizers(self, checkpoint: Checkpoint) -> tuple[OptimizerState, ...]:
        """Every optimizer; one that was saved in pieces, as each rank has it."""
        parts = sorted(self.parts.optimizers.items())
        found = tuple(_optimizer(checkpoint, path) for _, part in parts for path in part.paths)
        if not found:
            raise FactUnavailable("there is no optimizer")
        return found

    def processes(self, checkpoint: Checkpoint) -> int:
        """One more than the highest rank that wrote a file; a rank that had nothing to write left none."""
        both = (self.parts.models, self.parts.optimizers)
        return max((rank for own in both for p in own.values() for rank in _ranks(checkpoint, p)), default=-1) + 1

    def ranks(
        self, checkpoint: Checkpoint, own: tuple[RankFiles, ...], sizes: tuple[Recorded, ...], count: int
    ) -> Ranks:
        """The files of which each rank wrote one, and the updates that each records."""
        return Ranks(sizes, (*own, *_families(self.parts, count)), tuple(_all_steps(checkpoint, self.parts)))


def _weights(checkpoint: Checkpoint, part: Part) -> WeightFile:
    path = part.paths[0]
    if part.folder:
        whole_metadata(checkpoint, path)
        return WeightFile(path, "dcp", saved.model_tensors(checkpoint, path))
    file = checkpoint.files.torch_file(path)
    tensors = flatten(_whole(file.value))
    if part.ranks and any(name.rpartition(".")[2] == _FLAT for name in tensors):
        message = "each rank kept its piece of the flattened model, and does not record which weights it consists of"
        raise FactUnavailable(message, path=path)
    return WeightFile(path, "torch", tensors, problems=file.problems)


def _whole(value: object) -> object:
    """Values with the whole shape of a tensor in the place of a rank's piece of it."""
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, Opaque) and value.type.endswith("_rebuild_wrapper_subclass") and len(value.args) > 2:
        _, dtype, shape, *_ = value.args
        if isinstance(shape, tuple) and all(isinstance(n, int) for n in shape):
            tensor = TensorInfo(str(dtype).removeprefix("torch."), shape, 0)
            return tensor._replace(nbytes=tensor.numel * DTYPE_BITS.get(tensor.dtype, 0) // 8)
    return value


def _optimizer(checkpoint: Checkpoint, path: str) -> OptimizerState:
    if path.endswith(METADATA):
        whole_metadata(checkpoint, path)
        small = saved.all_small_values(checkpoint, path)
        return state_dicts.optimizer(saved.optimizer_state(checkpoint, small, path), path, "optimizer")
    return state_dicts.optimizer(_whole(checkpoint.files.contents(path)), path, "")


def _ranks(checkpoint: Checkpoint, part: Part) -> Iterator[int]:
    yield from part.ranks
    if part.folder and checkpoint.listing.get(part.paths[0]) is not None:
        names = {item.path.rpartition("/")[2] for item in checkpoint.files.distributed(part.paths[0]).items}
        yield from (rank for name in names if (rank := rank_of_shard(name)) is not None)


def _steps(checkpoint: Checkpoint, part: Part) -> Iterator[Recorded]:
    if not part.folder:
        states = (_optimizer(checkpoint, path) for path in part.ranks.values())
        yield from (Recorded("step", s.updates, s.path, "state") for s in states if s.updates is not None)
        return
    whole_metadata(checkpoint, part.paths[0])
    small = saved.all_small_values(checkpoint, part.paths[0])
    most: dict[str, tuple[int, str]] = {}
    for name, step in saved.update_counters(small).items():
        path = small.paths[name]
        most[path] = max(most.get(path, (-1, "")), (step, name))
    yield from (Recorded("step", step, path, name) for path, (step, name) in sorted(most.items()))


def _families(parts: Parts, ranks: int) -> Iterator[RankFiles]:
    """The files of which each rank wrote one.

    ranks: how many there were by what other files say; 0 where nothing says it
    """
    pieces = [(_MODEL_STOPS, "the piece of the model", p.ranks) for p in parts.models.values()]
    pieces += [(_OPTIMIZER_STOPS, "the piece of the optimizer", p.ranks) for p in parts.optimizers.values()]
    count = max([ranks, *(max(paths) + 1 for *_, paths in pieces if paths)])
    for why, what, paths in pieces:
        if paths:
            template = re.sub(r"_rank\d+\.bin$", "_rank{}.bin", next(iter(paths.values())))
            yield RankFiles(what, template, paths, why, expected=count)


def _all_steps(checkpoint: Checkpoint, parts: Parts) -> Iterator[Recorded]:
    """The updates that each file records, the most that any of its parameters has had."""
    for part in parts.optimizers.values():
        try:
            yield from _steps(checkpoint, part)
        except FactUnavailable:
            continue  # rules about damaged files report it


def purposes_of(kind: str) -> frozenset[str]:
    """What a model, or an optimizer, is needed for."""
    return TO_RESUME_OR_LOAD if kind == "model" else frozenset({"resume"})
