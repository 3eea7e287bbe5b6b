"""Code that the hyper-parameters in a Lightning checkpoint name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, FactUnavailable, Opaque
from ckpt_rules_safety.named_code import NamedCode, harm, is_of

_KEYS = ("hyper_parameters", "datamodule_hyper_parameters")
_INSTANTIATORS = frozenset(
    f"{package}.cli.instantiate_module" for package in ("lightning.pytorch", "pytorch_lightning")
)
_LIBRARIES = frozenset({"__main__", "lightning", "pytorch_lightning", "torch", "torchvision"})
_INSTANTIATOR = "load_from_checkpoint imports and calls it, in versions of Lightning that allow any name there"
_CLASS = "load_from_checkpoint imports that class and makes an instance of it"


def named_in_hyper_parameters(checkpoint: Checkpoint) -> Iterator[NamedCode]:
    """Each `_instantiator` that is not Lightning's, and the class that it is to make."""
    for entry in checkpoint.files.of_format("torch"):
        try:
            value = checkpoint.files.torch_file(entry.path).value
        except FactUnavailable:
            continue
        if isinstance(value, dict):
            for name in _KEYS:
                yield from _named(entry.path, name, _items(value.get(name)))


def _named(path: str, name: str, values: Mapping[object, object]) -> Iterator[NamedCode]:
    instantiator, kind = values.get("_instantiator"), values.get("_class_path")
    if isinstance(instantiator, str) and instantiator not in _INSTANTIATORS:
        yield NamedCode(path, f"{name}._instantiator", instantiator, _INSTANTIATOR)
    if (
        isinstance(kind, str)
        and not is_of(kind, _LIBRARIES)
        # A harmless class is what the command line of Lightning writes: one of the project, a subclass of a module.
        and (instantiator not in _INSTANTIATORS or harm(kind))
    ):
        yield NamedCode(path, f"{name}._class_path", kind, _CLASS)


def _items(value: object) -> Mapping[object, object]:
    """The entries of a dictionary, or of an object that stands for one."""
    if isinstance(value, Opaque):
        state = value.state if isinstance(value.state, dict) else {}
        return {**state, **{key: part for key, part in value.pairs if isinstance(key, str)}}
    return value if isinstance(value, dict) else {}
