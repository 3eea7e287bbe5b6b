"""Rules about whether there is anything in the weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ckpt_rules import (
    Checkpoint,
    Content,
    Entry,
    EntryKind,
    FactUnavailable,
    Place,
    Problem,
    Rule,
    WeightFile,
    conventions,
    expected_format,
    hollow_saves,
)

_FLAT = "_flat_param"
_SHOWN = 5
_FORMATS = conventions.suffixes.WEIGHTS | {".gguf", ".ocdbt"}
_FORMATS_OF_OTHERS = _FORMATS | {
    ".gz", ".joblib", ".keras", ".mar", ".model", ".nemo", ".npy", ".onnx", ".p", ".pickle", ".pkl", ".pt2", ".tflite", ".zip",
}  # fmt: skip
_DATA = frozenset({
    Content.BINARY, Content.GGUF, Content.GZIP, Content.HDF5, Content.NUMPY, Content.PICKLE, Content.SAFETENSORS, Content.SEVEN_ZIP,
    Content.TAR, Content.ZIP,
})  # fmt: skip
_OTHER_DATA = frozenset({
    ".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp4", ".mp3", ".wav", ".pdf", ".ico", ".ttf", ".parquet", ".arrow", ".so", ".pyc",
    ".whl", ".db", ".sqlite", ".csv", ".wandb", ".tfevents",
})  # fmt: skip
_NOT_LOOKED_INTO = frozenset({".h5", ".keras", ".ocdbt"})
_ZARR = frozenset({".zarray", "zarr.json"})
_NO_WEIGHTS = re.compile(r"(?:optim|sched|rng|random_state|training_args|scaler)", re.IGNORECASE)


class Missing(Rule):
    """There are no model weights in the checkpoint.

    ## What it checks
    That the layout finds weights at all: as safetensors, as a torch file, in shards, or inside the training state. An
    `adapter_config.json` without adapter weights also counts as missing weights.

    ## Why it matters
    The save stopped before the model was written, or wrote it elsewhere. Some trainers then continue with random
    weights.

    ## How to repair
    Copy the weights from where the save was written, or resume from an earlier save.
    """

    id = "weights/missing"
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem at the most."""
        listing = checkpoint.listing
        if not listing.entries:
            return  # files/missing-checkpoint speaks of empty directories
        if _is_of_peft(checkpoint) and not listing.files("adapter_model*.*", top_only=True):
            yield Problem(
                message="adapter_config.json describes an adapter, but there are no adapter weights in the same "
                "directory",
                place=Place(path="adapter_config.json"),
                help="copy adapter_model.safetensors from where the save was written",
            )
        try:
            _ = checkpoint.weights
        except FactUnavailable as absent:
            if absent.blocked:
                raise
            for entry in listing:
                if entry.kind not in (EntryKind.FILE, EntryKind.DIRECTORY) and entry.suffix in _FORMATS:
                    raise FactUnavailable(f"{entry.path} can't be read", path=entry.path, blocked=True) from None
            for entry in checkpoint.fact(hollow_saves):
                raise FactUnavailable(
                    f"{entry.path} does not contain what its name says", path=entry.path, blocked=True
                ) from None
            if other := _may_hold_weights(checkpoint):
                raise FactUnavailable(f"no known layout says whether {other} holds the weights") from None
            yield Problem(
                message="there are no model weights: no safetensors file and no torch file that contains a model",
                place=Place(path=absent.path or "."),
                help="copy the weights from where the save was written, or resume from an earlier save",
            )


def _is_of_peft(checkpoint: Checkpoint) -> bool:
    """mlx-lm's adapter_config.json has a `fine_tune_type`, and weights of another name."""
    if not checkpoint.listing.has_file("adapter_config.json"):
        return False
    try:
        config = checkpoint.files.json("adapter_config.json").value
    except FactUnavailable:
        return True
    return not (isinstance(config, Mapping) and "fine_tune_type" in config)


def _may_hold_weights(checkpoint: Checkpoint) -> str | None:
    """A file that a trainer of its own may keep weights in.

    In a directory of no known layout that is any; else one below it, or one with a suffix of its own.
    """
    unknown = checkpoint.match is None
    files = [e for e in checkpoint.listing.files() if unknown or "/" in e.path or _is_of_another_format(e)]
    if unknown and checkpoint.files.is_one_file:
        return next((e.path for e in files), None)  # whatever else belongs to it lies elsewhere
    formats = _FORMATS_OF_OTHERS if unknown else _FORMATS
    for entry in files:
        if entry.name in _ZARR:
            return entry.path
        if not _NO_WEIGHTS.match(entry.name) and (entry.suffix in formats or _is_data(checkpoint, entry)):
            return entry.path
    return None


def _is_of_another_format(entry: Entry) -> bool:
    return entry.suffix in _NOT_LOOKED_INTO or (entry.suffix not in _FORMATS and expected_format(entry.name) is None)


def _is_data(checkpoint: Checkpoint, entry: Entry) -> bool:
    """Whether a file with a suffix of its own (`model.pdparams`, `checkpoint_100`) holds what may be weights: no text, no picture."""
    if entry.suffix in _OTHER_DATA or entry.name.startswith((".", "events.out.")):
        return False
    return expected_format(entry.name) is None and checkpoint.files.sniff(entry.path).content in _DATA


class NoTensors(Rule):
    """A weight file is valid but contains no tensors.

    ## What it checks
    Every file that the weights are loaded from. A safetensors file of 40 bytes and a `.bin` of 443 are what an empty
    dictionary looks like.

    ## Why it matters
    A filter on parameter names, or a gather across ranks, let nothing through. The loader accepts the file without an
    error and leaves the model as it was initialised.

    ## How to repair
    Resume from a save that contains weights, and fix the code that collects the state dict before the next save.
    """

    id = "weights/no-tensors"
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file without tensors."""
        for file in checkpoint.weights.files:
            if not file.tensors and not any(p.fatal for p in file.problems) and _is_dictionary(checkpoint, file):
                entry = checkpoint.listing.get(file.path)
                yield Problem(
                    message=f"the file is valid, {entry.size if entry else 0:,} bytes long, but holds no tensors",
                    place=Place(path=file.path, key=file.key or None),
                    help="resume from a save that holds weights; check the code that collects the state dict",
                )


def _is_dictionary(checkpoint: Checkpoint, file: WeightFile) -> bool:
    """Whether a file is a dictionary without tensors; a pickled module or TorchScript keeps its tensors elsewhere."""
    if file.format == "safetensors":
        return True
    return isinstance(checkpoint.files.torch_file(file.path).value, Mapping) and not _is_flattened(checkpoint, file)


def _is_flattened(checkpoint: Checkpoint, file: WeightFile) -> bool:
    """Whether FSDP 1 keeps a rank's piece of all parameters as one (LOCAL_STATE_DICT); some or all others are empty then."""
    names: set[object] = set(file.tensors)
    if file.format == "torch":
        value = checkpoint.files.torch_file(file.path).value
        inside = value.get(file.key) if isinstance(value, Mapping) and file.key else value
        names |= set(inside) if isinstance(inside, Mapping) else set()
    return any(str(name).rpartition(".")[2] == _FLAT for name in names)


class EmptyTensors(Rule):
    """Weight tensors have no elements.

    ## What it checks
    The shape of every `weight`, `bias` and embedding: a dimension of size zero means that nothing was stored. Buffers,
    such as masks and caches, may be empty.

    ## Why it matters
    ZeRO-3 and FSDP leave placeholders of shape [0] in a model whose parameters live on other ranks. If it is saved
    without gathering them first, the checkpoint has every name but no values.

    ## How to repair
    Save through the trainer's own gathering (`stage3_gather_16bit_weights_on_model_save`, a full state dictionary), or
    rebuild the weights from the optimizer's shards.
    """

    id = "weights/empty-tensors"
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file with such tensors."""
        for file in checkpoint.weights.files:
            empty = [n for n, t in file.tensors.items() if 0 in t.shape and _is_parameter(n)]
            if empty and not _is_flattened(checkpoint, file):
                yield _hollow(file, empty)


def _is_parameter(name: str) -> bool:
    return name.endswith(("weight", "bias")) or "embed" in name or "lora_" in name


def _hollow(file: WeightFile, empty: list[str]) -> Problem:
    shown = ", ".join(f"{n} {list(file.tensors[n].shape)}" for n in empty[:_SHOWN])
    more = f" and {len(empty) - _SHOWN:,} more" if len(empty) > _SHOWN else ""
    return Problem(
        message=f"{len(empty):,} of {len(file.tensors):,} tensors have no elements: {shown}{more}",
        place=Place(path=file.path, tensor=empty[0]),
        help="gather the parameters from all ranks before saving (ZeRO-3, FSDP), or resume from another save",
        data={"empty": len(empty), "tensors": len(file.tensors)},
    )
