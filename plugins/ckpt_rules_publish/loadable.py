"""weights/not-loadable: what from_pretrained finds weights and model by, where no layout asks for it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ckpt_rules import Checkpoint, Place, Problem, Rule, Severity

_SHARD = re.compile(r"((?:.*/)?(?:model|pytorch_model|diffusion_pytorch_model))-\d{5}-of-(\d{5})\.(safetensors|bin)")
_WEIGHTS = re.compile(r"(?:model|pytorch_model)[\w.\-]*\.(?:safetensors|bin)")
_DESCRIBES = ("config.json", "modules.json")
_COPY = "copy it from where the model was saved"


class NotLoadable(Rule):
    """A file by which from_pretrained finds the weights, or the model, is missing.

    ## What it checks
    Beside weights as `save_pretrained` names them: the index of shards; and `config.json`, where a tokenizer shows that the
    model is one of transformers. It is not asked of a checkpoint to resume from: trainers know their model, and the layout says
    what they need.

    ## Why it matters
    `from_pretrained` stops. Who wrote the model has the file in a cache and does not notice.

    ## How to repair
    Save the model again into an empty directory, with its tokenizer, and compare the lists of files.
    """

    id = "weights/not-loadable"
    tags = frozenset({"load"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file that is missing."""
        required = {name for requirement in checkpoint.requirements for name in requirement.names}
        for path in sorted(set(_indexes(checkpoint)) - required):
            words = f"{path} is missing: from_pretrained finds the shards through it"
            yield Problem(message=words, place=Place(path=path), help=_COPY)
        if _lacks_configuration(checkpoint) and "config.json" not in required:
            words = "config.json is missing: from_pretrained builds the model by it, and a tokenizer lies beside the weights"
            yield Problem(message=words, place=Place(path="config.json"), help=_COPY, severity=Severity.WARNING)


def _indexes(checkpoint: Checkpoint) -> Iterator[str]:
    """The index of each set of shards that has none."""
    for entry in checkpoint.listing.files():
        shard = _SHARD.fullmatch(entry.path)
        if shard and int(shard[2]) > 1:
            stem = shard[1]
            if shard[3] == "bin" and stem.rpartition("/")[2] == "model":  # torchtune's
                stem = f"{stem.removesuffix('model')}pytorch_model"
            if not checkpoint.listing.has_file(f"{stem}.{shard[3]}.index.json"):
                yield f"{stem}.{shard[3]}.index.json"


def _lacks_configuration(checkpoint: Checkpoint) -> bool:
    listing = checkpoint.listing
    if not listing.has_file("tokenizer_config.json") or any(map(listing.has_file, _DESCRIBES)):
        return False
    return any(_WEIGHTS.fullmatch(e.path) for e in listing.files())
