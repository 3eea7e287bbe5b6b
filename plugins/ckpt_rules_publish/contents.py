"""Rules about what others neither need nor should be asked to run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, Entry, EntryKind, FactUnavailable, Place, Problem, Rule, Severity, conventions

_STEMS = "|".join((*conventions.state_files.STEMS, "lr_scheduler", "rng_state", "dl_state_dict"))
_WHOLE = "|".join(map(re.escape, (conventions.state_files.ARGUMENTS, conventions.state_files.TRAINER_STATE)))
_STATE = re.compile(
    rf"(?:{_STEMS})(?:[_.-].*)?\.(?:pt|pth|bin|pkl|safetensors)|{_WHOLE}|.*_optim_states\.pt", re.IGNORECASE
)
_TORCH = (*conventions.suffixes.TORCH, *conventions.suffixes.TORCH_OR_OTHER)
_LOCAL = re.compile(r"/(?!/)|\.{1,2}/|~|[A-Za-z]:\\")
_NAMES = ("_name_or_path", "base_model_name_or_path")


class TrainingState(Rule):
    """There is a training-state file with the weights.

    ## What it checks
    Names of optimizer, scheduler, scaler, random-number and trainer states, and of `training_args.bin`; files of a
    distributed checkpoint; and any weight file that also contains an optimizer.

    ## Why it matters
    They are not needed to load the model, often take twice the space of the weights, and the pickled arguments reveal
    paths and names of the training machine.

    ## How to repair
    Save only the model (`save_pretrained`, `save_only_model`), or leave these files out of the upload.
    """

    id = "publish/training-state"
    tags = frozenset({"publish"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        for entry in _files(checkpoint):
            if _STATE.fullmatch(entry.name):
                yield Problem(
                    message=f"{entry.path} ({entry.size:,} bytes) is training state, which is not needed to load the "
                    "model",
                    place=Place(path=entry.path),
                    help="leave it out of the published files",
                    data={"nbytes": entry.size},
                )
            elif entry.suffix == ".distcp":
                yield Problem(
                    message=f"{entry.path} is part of a distributed checkpoint, which no library loads as a model",
                    place=Place(path=entry.path),
                    help="export the weights as safetensors, and leave it out of the published files",
                    data={"nbytes": entry.size},
                )
        yield from _with_optimizer(checkpoint)


def _with_optimizer(checkpoint: Checkpoint) -> Iterator[Problem]:
    """Files that hold more than a training state, and the optimizer's as well."""
    try:
        paths = {optimizer.path for optimizer in checkpoint.optimizers}
    except FactUnavailable:
        return
    for path in sorted(p for p in paths if p.endswith(_TORCH) and not _STATE.fullmatch(p.rpartition("/")[2])):
        yield Problem(
            message=f"{path} contains the optimizer state, which is not needed to load the model",
            place=Place(path=path),
            help="save only the weights, as safetensors",
        )


class PickledWeights(Rule):
    """Weights are in a pickle, which can run code when it is loaded.

    ## What it checks
    Every file that `torch.save` or pickle wrote, except for training states, which another rule reports.

    ## Why it matters
    Loading a pickle runs what is in it; the user has to trust it, or a scanner. Hubs flag such files, and many people
    refuse them.

    ## How to repair
    Save the weights as safetensors: `save_pretrained(...)` of transformers does, or `safetensors.torch.save_file`.
    """

    id = "publish/pickled-weights"
    tags = frozenset({"publish", "safety"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        for entry in checkpoint.files.of_format("torch"):
            if not _STATE.fullmatch(entry.name):
                yield Problem(
                    message=f"{entry.path} is a pickle, which can run arbitrary code when it is loaded",
                    place=Place(path=entry.path),
                    help="save its tensors as safetensors",
                )


class LocalPath(Rule):
    """A configuration names a directory on the machine that wrote it.

    ## What it checks
    `_name_or_path` in config.json and `base_model_name_or_path` in adapter_config.json: that they are not paths.

    ## Why it matters
    An adapter whose base model is a local path can't be loaded anywhere else. Any path reveals the directory layout of
    the machine.

    ## How to repair
    Write the public name of the model into the file.
    """

    id = "publish/local-path"
    severity = Severity.WARNING
    tags = frozenset({"publish"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each entry."""
        for path in ("config.json", conventions.weight_files.ADAPTER_CONFIG):
            values = _json(checkpoint, path)
            for key in _NAMES:
                value = values.get(key)
                if isinstance(value, str) and _LOCAL.match(value):
                    adapter = key == "base_model_name_or_path"
                    yield Problem(
                        message=f"{key} is {value!r}, a path on the machine that wrote it"
                        + (", without which nobody can load the adapter" if adapter else ""),
                        place=Place(path=path, key=key),
                        help="replace it with the public name of the model",
                        severity=Severity.ERROR if adapter else None,
                    )


def _files(checkpoint: Checkpoint) -> list[Entry]:
    return [e for e in checkpoint.listing if e.kind is EntryKind.FILE]


def _json(checkpoint: Checkpoint, path: str) -> Mapping[str, object]:
    try:
        values = checkpoint.files.contents(path)
    except FactUnavailable:
        return {}
    return values if isinstance(values, Mapping) else {}
