"""Code that the JSON files of transformers, sentence-transformers, PEFT, diffusers and Keras name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ckpt_rules import Checkpoint, Entry, FactUnavailable
from ckpt_rules_safety.keras_code import named_by_keras
from ckpt_rules_safety.named_code import NamedCode, harm, is_dotted, is_of

_KERNELS = frozenset(
    f"{under}{kind}_implementation{rest}"
    for kind in ("attn", "experts")
    for under, rest in (("_", "_internal"), ("_", ""), ("", ""))
)
_KERNEL = "transformers downloads a kernel from that repository and runs it"
_AUTO_MAP = "transformers imports it with trust_remote_code=True"
_TEMPLATE = "saving the tokenizer writes a file of that name outside of the directory"
_SENTENCE_MODULE = "sentence-transformers imports it (before version 6.0 without asking)"
_ACTIVATION = "sentence-transformers imports and calls it with trust_remote_code=True"
_MAPPING = "AutoPeftModel imports it, without asking in versions of PEFT that have no list of allowed packages"
_TARGET = "instantiating this object imports and calls it, and it"
_PIPELINE = "diffusers imports that file of the checkpoint"

_SENTENCE = frozenset({"sentence_transformers", "torch"})
_LIBRARIES = frozenset(
    {
        "__main__",
        "diffusers",
        "open_clip",
        "peft",
        "sentence_transformers",
        "timm",
        "torch",
        "torchvision",
        "transformers",
    }
)
_ACTIVATIONS = frozenset({"activation_fn", "activation_function", "sbert_ce_default_activation_function"})
_TARGETS = frozenset({"_target_", "class_path"})
_LEVELS, _TARGET_LEVELS = 4, 20
_MOST_NBYTES, _MOST_OTHER_NBYTES = 16 << 20, 1 << 20

Found = Iterator[tuple[str, str, str]]
"""Key, code and what becomes of it."""


def named_in_json(checkpoint: Checkpoint) -> Iterator[NamedCode]:
    """Every entry of a JSON file that names code."""
    for entry in checkpoint.files.of_format("json"):
        look = _LOOKS.get(entry.name, _targets)
        if entry.size > (_MOST_OTHER_NBYTES if look is _targets else _MOST_NBYTES):
            continue
        try:
            value = checkpoint.files.json(entry.path).value
        except FactUnavailable:
            continue
        for key, code, does in look(value, entry, checkpoint):
            yield NamedCode(entry.path, key, code, does)


def _config(value: object, *_: object) -> Found:
    if isinstance(value, dict):
        yield from _of_transformers(value, "", _LEVELS)
        yield from _targets(value)
        yield from _activations(value, "")
        yield from named_by_keras(value)


def _of_transformers(config: Mapping[object, object], above: str, levels: int) -> Found:
    """What a configuration, and those of the models inside of it, name."""
    for name, value in config.items():
        key = f"{above}{name}"
        if name == "auto_map":
            yield from ((where, code, _AUTO_MAP) for where, code in _texts(value, key))
        elif name == "custom_pipelines":
            yield from ((where, code, _AUTO_MAP) for where, code in _texts(value, key) if where.endswith(".impl"))
        elif name in _KERNELS:
            yield from ((where, code, _KERNEL) for where, code in _texts(value, key) if "/" in code)
        elif isinstance(value, dict) and levels:
            yield from _of_transformers(value, f"{key}.", levels - 1)


def _targets(value: object, *_: object) -> Found:
    """What Hydra's and Lightning's keys name at any depth, in a file of any name."""
    left: list[tuple[str, object, int]] = [("", value, _TARGET_LEVELS)]
    while left:
        above, part, levels = left.pop()
        inside = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for name, each in inside:
            key = f"{above}.{name}" if above else str(name)
            if name in _TARGETS and isinstance(each, str) and (what := harm(each)):
                yield key, each, f"{_TARGET} {what}"
            elif isinstance(each, dict | list) and levels:
                left.append((key, each, levels - 1))


def _texts(value: object, key: str) -> Iterator[tuple[str, str]]:
    """The texts in a value, each with its key."""
    if isinstance(value, str) and value:
        yield key, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _texts(part, f"{key}.{name}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _texts(part, f"{key}.{number}")


def _tokenizer(value: object, *_: object) -> Found:
    yield from _config(value)
    templates = value.get("chat_template") if isinstance(value, dict) else None
    for number, template in enumerate(templates if isinstance(templates, list) else ()):
        name = template.get("name") if isinstance(template, dict) else None
        if isinstance(name, str) and ("/" in name or "\\" in name):
            yield f"chat_template.{number}.name", name, _TEMPLATE


def _modules(value: object, *_: object) -> Found:
    for number, module in enumerate(value if isinstance(value, list) else ()):
        kind = module.get("type") if isinstance(module, dict) else None
        if isinstance(kind, str) and not kind.startswith("sentence_transformers."):
            yield f"{number}.type", kind, _SENTENCE_MODULE


def _activations(config: Mapping[object, object], above: str) -> Found:
    for name, value in config.items():
        if name in _ACTIVATIONS and isinstance(value, str) and is_dotted(value) and not is_of(value, _SENTENCE):
            yield f"{above}{name}", value, _ACTIVATION
        elif name == "sentence_transformers" and isinstance(value, dict):
            yield from _activations(value, f"{name}.")


def _adapter(value: object, *_: object) -> Found:
    yield from _config(value)
    mapping = value.get("auto_mapping") if isinstance(value, dict) else None
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    if isinstance(library, str) and not is_of(library, _LIBRARIES):
        yield "auto_mapping.parent_library", library, _MAPPING


def _pipeline(value: object, entry: Entry, checkpoint: Checkpoint) -> Found:
    folder = f"{entry.parent}/" if entry.parent else ""
    for name, component in value.items() if isinstance(value, dict) else ():
        module = component[0] if isinstance(component, list) and component else None
        if not isinstance(module, str):
            continue
        places = (f"{folder}{module}.py", f"{folder}{name}/{module}.py")
        if any(checkpoint.listing.get(place) for place in places):
            yield f"{name}", module, _PIPELINE


_LOOKS: dict[str, Callable[[object, Entry, Checkpoint], Found]] = {
    "adapter_config.json": _adapter,
    "config.json": _config,
    "generation_config.json": _config,
    "image_processor_config.json": _config,
    "model_index.json": _pipeline,
    "modules.json": _modules,
    "preprocessor_config.json": _config,
    "processor_config.json": _config,
    "tokenizer_config.json": _tokenizer,
    "video_preprocessor_config.json": _config,
}
