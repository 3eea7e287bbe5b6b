"""Which files hold the model weights, by the naming conventions that trainers share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckpt_rules.conventions import state_files
from ckpt_rules.conventions.state_dict_keys import MODEL
from ckpt_rules.conventions.weight_files import ANY_STEM, MISTRAL, SHARD, STEMS
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.tensors import ReadProblem, TensorInfo, WeightFile, WeightIndex, Weights
from ckpt_rules.readers.sniff import expected_format

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint

_INDEX_FIRST = "diffusion_pytorch_model"
_STATE_STEMS = (
    *state_files.STEMS, "sched", "lr_sched", "rng", "random_state", "training_args", "trainer_state", "grad_scaler", "dl_state", "ema",
    "model_ema", "consolidated",
)  # fmt: skip
_NOT_WEIGHTS = re.compile(rf"(?:{'|'.join(_STATE_STEMS)})(?:[._-].*)?")
_WHOLE_SAVES = re.compile(r"(?:state|checkpoint|ckpt|last|best|latest)(?:[._-].*)?")
_MAX_NESTING = 4


@dataclass(frozen=True, slots=True)
class _Copy:
    """One complete set of weights as the names promise it: what to read, and the index that said so."""

    stem: str
    suffix: str
    paths: tuple[str, ...]
    index: WeightIndex | None = None

    @property
    def rank(self) -> tuple[bool, bool, bool, int, str]:
        """Loaders take an adapter last, safetensors before torch, usual names first, a plain file before shards.

        Of diffusers' two, it is the other way round.
        """
        usual = STEMS.index(self.stem) if self.stem in STEMS else len(STEMS)
        sharded = self.index is not None or len(self.paths) > 1
        if self.stem == _INDEX_FIRST:
            sharded = self.index is None
        return (self.stem.startswith("adapter"), self.suffix != "safetensors", sharded, usual, self.stem)


def find_weights(checkpoint: Checkpoint, folder: str = "") -> Weights:
    """The weights at the top of a checkpoint: what a loader takes, what it passes over, and what no index knows.

    folder: a directory inside the checkpoint to look into instead of its top

    FactUnavailable where there are none, `blocked` where there are and the index or only file can't be read.
    """
    copies = sorted(_copies(checkpoint, folder), key=lambda copy: copy.rank)
    if not copies:
        raise FactUnavailable("there are no model weights")
    chosen = copies[0]
    rivals = [c for c in copies[1:] if c.stem.startswith("adapter") == chosen.stem.startswith("adapter")]
    known = {path for copy in copies for path in copy.paths}
    strays = [p for p in _weight_paths(checkpoint, folder) if p not in known] if chosen.index else []
    present = checkpoint.listing.has_file
    return Weights(
        files=tuple(_read(checkpoint, p) for p in chosen.paths if present(p)),
        index=chosen.index,
        alternatives=tuple(
            tuple(_read(checkpoint, p) for p in c.paths if present(p)) for c in rivals if c.paths != chosen.paths
        ),
        passed_over=tuple(c.index for c in rivals if c.index is not None),
        unindexed=tuple(_read(checkpoint, p) for p in strays if p.endswith(chosen.suffix)),
    )


def weights_of_components(checkpoint: Checkpoint, folders: Iterable[str]) -> Weights:
    """The weights that are loaded together from several directories, '' being the top; each may have an index of its own.

    FactUnavailable where none of them holds weights; `blocked` as in `find_weights`.
    """
    parts: list[Weights] = []
    files: list[WeightFile] = []
    for folder in folders:
        try:
            part = find_weights(checkpoint, folder)
        except FactUnavailable as absent:
            if absent.blocked:
                raise
            continue
        parts.append(part)
        lead = f"{folder}." if folder else ""
        files += (replace(f, tensors={f"{lead}{name}": t for name, t in f.tensors.items()}) for f in part.files)
    if not parts:
        raise FactUnavailable("there are no model weights")
    return parts[0] if len(parts) == 1 else Weights(tuple(files), parts=tuple(parts))


def weights_in(checkpoint: Checkpoint, path: str, keys: tuple[str, ...]) -> Weights:
    """The weights inside a one-file checkpoint, under the first of `keys` that holds tensors."""
    file = checkpoint.files.torch_file(path)
    if not file.readable:
        raise FactUnavailable(f"{path} is damaged", path=path, blocked=True)
    values = file.value if isinstance(file.value, Mapping) else {}
    for key in keys:
        tensors = flatten(values.get(key))
        if tensors:
            return Weights((WeightFile(path, "torch", tensors, key, problems=file.problems),))
    raise FactUnavailable(f"{path} holds no model weights")


def torch_weights(checkpoint: Checkpoint, path: str) -> WeightFile:
    """The tensors of a torch file that holds nothing else; what is wrong with it is among its problems."""
    file = checkpoint.files.torch_file(path)
    return WeightFile(path, "torch", flatten(file.value), problems=file.problems)


def flatten(value: object) -> dict[str, TensorInfo]:
    """The tensors of a state dictionary by name; dictionaries inside it add their key and a dot, as a list adds numbers."""
    found: dict[str, TensorInfo] = {}
    value = dict(enumerate(value)) if isinstance(value, list | tuple) else value

    def walk(part: object, prefix: str, depth: int) -> None:
        if isinstance(part, Mapping) and depth < _MAX_NESTING:
            for key, item in part.items():
                if isinstance(item, TensorInfo):
                    found[f"{prefix}{key}"] = item
                else:
                    walk(item, f"{prefix}{key}.", depth + 1)

    walk(value, "", 0)
    return found


def _copies(checkpoint: Checkpoint, folder: str) -> list[_Copy]:
    indexed = list(_indexed(checkpoint, folder))
    known = {(copy.stem, copy.suffix) for copy in indexed}
    paths = _weight_paths(checkpoint, folder)
    names = [(*path.rpartition("/")[2].rpartition(".")[::2], path) for path in paths]
    plain = [_Copy(stem, suffix, (path,)) for stem, suffix, path in names if stem in STEMS]
    families: dict[tuple[str, str], list[str]] = {}
    parts: dict[str, list[str]] = {}
    for _, suffix, path in names:
        if shard := SHARD.fullmatch(path.rpartition("/")[2]):
            families.setdefault((shard["stem"], suffix), []).append(path)
        else:
            parts.setdefault(suffix, []).append(path)
    shards = [_Copy(*key, tuple(members)) for key, members in families.items() if key not in known]
    if indexed or plain or families:
        return indexed + plain + shards
    if not parts and not folder:
        for file_format, path in _by_content(checkpoint):
            parts.setdefault(file_format, []).append(path)
    # Parts with names of their own, encoder.safetensors beside decoder.safetensors, are loaded together.
    return [_Copy("", suffix, tuple(members)) for suffix, members in parts.items()]


def _indexed(checkpoint: Checkpoint, folder: str) -> Iterable[_Copy]:
    for entry in checkpoint.listing.files("*.index.json"):
        stem, _, suffix = entry.name.removesuffix(".index.json").rpartition(".")
        if entry.parent == folder and suffix in ("safetensors", "bin") and stem:
            index = read_index(checkpoint, entry.path)
            yield _Copy(stem, suffix, tuple(sorted(set(index.weight_map.values()))), index)


def _weight_paths(checkpoint: Checkpoint, folder: str) -> list[str]:
    """Files in a folder whose names say that they hold weights."""
    found = []
    for entry in checkpoint.listing.files():
        if entry.parent != folder:
            continue
        stem, _, suffix = entry.name.rpartition(".")
        if _NOT_WEIGHTS.fullmatch(stem.lower()) or (suffix != "safetensors" and _WHOLE_SAVES.fullmatch(stem.lower())):
            continue
        if suffix == "safetensors" or (suffix in ("bin", "pt", "pth") and ANY_STEM.fullmatch(stem.lower())):
            found.append(entry.path)
    return found


def _by_content(checkpoint: Checkpoint) -> Iterable[tuple[str, str]]:
    """Format and path of files at the top whose names promise nothing, or that others have elsewhere, and that hold tensors."""
    for file_format in ("safetensors", "torch"):
        for entry in checkpoint.files.of_format(file_format):
            odd = expected_format(entry.name) is None and not _NOT_WEIGHTS.fullmatch(entry.name.lower())
            if (odd or MISTRAL.fullmatch(entry.path)) and _read(checkpoint, entry.path).tensors:
                yield file_format, entry.path


def read_index(checkpoint: Checkpoint, path: str) -> WeightIndex:
    """A `*.index.json`; FactUnavailable where it is not an index at all. Files that it names lie beside it."""
    folder = path.rpartition("/")[0]
    file = checkpoint.files.json(path)
    values = file.value if isinstance(file.value, Mapping) else {}
    weight_map = values.get("weight_map")
    if not isinstance(weight_map, Mapping) or not all(isinstance(v, str) for v in weight_map.values()):
        raise FactUnavailable(f"{path} holds no `weight_map` from tensors to files", path=path, blocked=True)
    metadata = values.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    above = f"{folder}/" if folder else ""
    return WeightIndex(path, {tensor: above + file.removeprefix("./") for tensor, file in weight_map.items()}, total)


def _read(checkpoint: Checkpoint, path: str) -> WeightFile:
    """One file; with a fatal problem and no tensors where another family of rules has something to say about it."""
    in_safetensors = path in {e.path for e in checkpoint.files.of_format("safetensors")}
    safetensors = in_safetensors or path.endswith(".safetensors")
    file_format = "safetensors" if safetensors else "torch"
    if not in_safetensors and path not in {e.path for e in checkpoint.files.of_format(file_format)}:
        return WeightFile(path, file_format, {}, problems=(ReadProblem("unreadable", "the file holds no tensors"),))
    try:
        if safetensors:
            header = checkpoint.files.safetensors(path)
            return WeightFile(path, file_format, header.tensors, metadata=header.metadata, problems=header.problems)
        file = checkpoint.files.torch_file(path)
    except FactUnavailable as absent:
        return WeightFile(path, file_format, {}, problems=(ReadProblem("unreadable", absent.reason),))
    key, tensors = _state_dict(file.value)
    return WeightFile(path, file_format, tensors, key, problems=file.problems)


def _state_dict(value: object) -> tuple[str, dict[str, TensorInfo]]:
    """The state dictionary in a torch file: the whole of it, or what lies under one of the usual keys."""
    if isinstance(value, Mapping):
        for key in MODEL:
            if isinstance(value.get(key), Mapping):
                return key, flatten(value[key])
    return "", flatten(value)
