"""The modules of a sentence-transformers model: `modules.json` names a directory for each, some of which hold weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ckpt_rules import (
    TO_RESUME_OR_LOAD,
    Checkpoint,
    EntryKind,
    FactUnavailable,
    Requirement,
    Weights,
    conventions,
    weights_of_components,
)

FILE = "modules.json"
CONFIG = "config_sentence_transformers.json"
_DIRECTORY = re.compile(r"\d{1,2}_[A-Z]\w*")
_WEIGHTS = tuple(f"{name}{index}" for index in ("", ".index.json") for name in conventions.weight_files.TRANSFORMERS)
_OTHER_BACKENDS = frozenset({"onnx", "openvino"})
_CONFIGURED, _WEIGHTED = ("Pooling", "Dense"), ("Dense",)


@dataclass(frozen=True, slots=True)
class Module:
    """One part of the model.

    path: its directory; '' is the top
    kind: the last part of its class: `Pooling`
    """

    path: str
    kind: str


def modules(checkpoint: Checkpoint) -> list[Module]:
    """What modules.json names, in its order. None of them where there is no such file."""
    if checkpoint.listing.get(FILE) is None:
        return []
    try:
        named = checkpoint.files.contents(FILE)
    except FactUnavailable:
        return []
    found = [m for m in named if isinstance(m, Mapping)] if isinstance(named, list) else []
    pairs = [(m.get("path"), m.get("type")) for m in found]
    return [Module(p.strip("/"), str(kind).rpartition(".")[2]) for p, kind in pairs if isinstance(p, str)]


def weights_of_modules(checkpoint: Checkpoint, others: Iterable[str] = ()) -> Weights:
    """Those at the top, in the directories that modules.json names, and in others."""
    return weights_of_components(checkpoint, ("", *(m.path for m in modules(checkpoint) if m.path), *others))


def module_requirements(checkpoint: Checkpoint) -> Iterator[Requirement]:
    """What the library builds and fills the modules from; a resume builds the model again from the checkpoint."""
    folders = [e.path for e in checkpoint.listing if e.kind is EntryKind.DIRECTORY and _DIRECTORY.fullmatch(e.path)]
    if folders and checkpoint.listing.get(CONFIG) is not None:
        why = f"without it sentence-transformers leaves out {', '.join(sorted(folders))}"
        yield Requirement((FILE,), why, purposes=TO_RESUME_OR_LOAD)
    found = modules(checkpoint)
    if Module("", "Transformer") in found and checkpoint.listing.get("adapter_config.json") is None:
        why = "sentence-transformers builds the model from it, at a resume as well"
        yield Requirement(("config.json",), why, purposes=TO_RESUME_OR_LOAD)
        if not any(e.path in _OTHER_BACKENDS for e in checkpoint.listing):
            why = "sentence-transformers loads the transformer at the top from it, at a resume as well"
            yield Requirement(_WEIGHTS, why, purposes=TO_RESUME_OR_LOAD)
    for module in found:
        if module.kind in _CONFIGURED and _DIRECTORY.fullmatch(module.path):
            why = f"modules.json names this {module.kind} module, which can't be built without it"
            yield Requirement((f"{module.path}/config.json",), why, purposes=TO_RESUME_OR_LOAD)
        if module.kind in _WEIGHTED and _DIRECTORY.fullmatch(module.path):
            names = tuple(f"{module.path}/{name}" for name in conventions.weight_files.TRANSFORMERS)
            why = f"modules.json names this {module.kind} module, whose weights it holds"
            yield Requirement(names, why, purposes=TO_RESUME_OR_LOAD)
