"""weights/not-loadable: what libraries read beside the weights, when they load a model by the name of its directory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, Content, Entry, Place, Problem, Rule, Severity

_JSON = frozenset({
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "preprocessor_config.json",
    "processor_config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
    "model_index.json", "scheduler_config.json",
})  # fmt: skip
_LARGE = 1 << 20
"""Bytes of JSON past which it is not parsed for this."""

_SHARD = re.compile(r"((?:.*/)?(?:model|pytorch_model|diffusion_pytorch_model))-\d{5}-of-(\d{5})\.(safetensors|bin)")
_WEIGHTS = re.compile(r"(?:model|pytorch_model|adapter_model)[\w.\-]*\.(?:safetensors|bin)|(?:onnx|openvino)/.+")
_MODULES = "modules.json"
_CONFIGURED = ("Transformer", "Pooling", "Dense", "LayerNorm", "WeightedLayerPooling")
_COPY = "copy it from where the model was saved"
_HOLD_WEIGHTS = ("Transformer", "Dense")


class NotLoadable(Rule):
    """A file by which libraries load the model is missing or damaged.

    ## What it checks
    Beside weights as `save_pretrained` names them: the index of shards; the configuration of a component of a pipeline, and of
    a model that has a tokenizer; configuration and weights of each module that `modules.json` names. That the files of
    tokenizers, processors and modules are JSON.

    ## Why it matters
    `from_pretrained` stops, or a library that guesses loads something else. Who wrote the model has the file in a cache and
    does not notice.

    ## How to repair
    Save the model again into an empty directory, with its tokenizer, and compare the lists of files.
    """

    id = "weights/not-loadable"
    tags = frozenset({"load"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        for entry in checkpoint.listing.files():
            if entry.name in _JSON and (fault := _fault(checkpoint, entry)):
                yield _problem(entry.path, f"{entry.path} {fault}", "save it again")
        for path, why in sorted(set(_missing(checkpoint))):
            yield _problem(path, f"{path} is missing: {why}", _COPY)
        if _lacks_configuration(checkpoint):
            words = "config.json is missing: from_pretrained builds the model by it, and a tokenizer lies beside the weights"
            yield _problem("config.json", words, _COPY, Severity.WARNING)


def _problem(path: str, message: str, help_: str, severity: Severity | None = None) -> Problem:
    return Problem(message=message, place=Place(path=path), help=help_, severity=severity)


def _lacks_configuration(checkpoint: Checkpoint) -> bool:
    listing = checkpoint.listing
    if not listing.has_file("tokenizer_config.json") or any(map(listing.has_file, ("config.json", _MODULES))):
        return False
    return any(_WEIGHTS.fullmatch(e.path) and not e.name.startswith("adapter_") for e in listing.files())


def _fault(checkpoint: Checkpoint, entry: Entry) -> str | None:
    """What is wrong with a file that must be JSON; `files/empty` speaks of one without bytes."""
    if not entry.size:
        return None
    if entry.size > _LARGE:
        return "holds nothing but zero bytes" if checkpoint.head(entry.path).content is Content.ZEROS else None
    fatal = next((p for p in checkpoint.json(entry.path).problems if p.fatal), None)
    return f"is no JSON: {fatal.message}" if fatal else None


def _missing(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Paths that are not there, each with what needs it."""
    listing = checkpoint.listing
    for entry in listing.files():
        shard = _SHARD.fullmatch(entry.path)
        index = shard and f"{shard[1]}.{shard[3]}.index.json"
        if shard and int(shard[2]) > 1 and not listing.has_file(str(index)):
            yield str(index), "from_pretrained finds the shards through it"
        folder, _, name = entry.path.rpartition("/")
        if folder and name.startswith("diffusion_pytorch_model") and not listing.has_file(f"{folder}/config.json"):
            yield f"{folder}/config.json", "from_pretrained builds the component by it"
    modules = checkpoint.json(_MODULES).value if listing.has_file(_MODULES) else None
    if isinstance(modules, list):
        yield from _of_modules(checkpoint, modules)


def _of_modules(checkpoint: Checkpoint, modules: list[object]) -> Iterator[tuple[str, str]]:
    """A model of sentence-transformers: each module has a directory, the first one mostly the top."""
    files = [e.path for e in checkpoint.listing.files()]
    for module in modules:
        path, kind = (module.get(k) for k in ("path", "type")) if isinstance(module, Mapping) else (None, None)
        if not isinstance(path, str) or not isinstance(kind, str):
            continue
        name, above = kind.rpartition(".")[2], f"{path.strip('/')}/" if path.strip("/") else ""
        why = f"modules.json names the module {name}, which is built by it"
        here = {file.removeprefix(above) for file in files if file.startswith(above)}
        if name in _CONFIGURED and not here & {"config.json", "adapter_config.json"}:
            yield f"{above}config.json", why
        if name in _HOLD_WEIGHTS and not any(map(_WEIGHTS.fullmatch, here)):
            yield f"{above}model.safetensors", why
