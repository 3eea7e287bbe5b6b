"""Llama as its authors publish it: `consolidated.NN.pth` of each model-parallel rank, and params.json. Weights, and no training."""

from __future__ import annotations

import re
from typing import ClassVar

from ckpt_rules import (
    TO_RESUME_OR_LOAD,
    Checkpoint,
    FactUnavailable,
    Layout,
    ModelConfig,
    RankFiles,
    Ranks,
    Requirement,
    Sign,
    Signature,
    Tells,
    Weights,
    torch_weights,
)

_FILE = re.compile(r"consolidated\.(\d{2})\.pth")
_PARAMS = "params.json"


_SHARES = Sign(lambda checkpoint: sorted(_files(checkpoint).values()), Tells.MODEL, most=2)


class LlamaOriginal(Layout):
    """A file for each rank, with the names of all tensors in each, and a share of their rows or columns."""

    name = "llama-original"
    title = "Llama's original files"
    signatures = (Signature(must=(_SHARES,), may=(Sign.file(_PARAMS, tells=Tells.MODEL),)),)
    resumable: ClassVar[bool] = False
    holds: ClassVar[str] = "weights"

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """params.json."""
        return (
            Requirement(
                (_PARAMS,),
                "it holds the sizes of the model, without which no loader can build it",
                purposes=TO_RESUME_OR_LOAD,
            ),
        )

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """The first rank's share: the others hold the same names."""
        files = _files(checkpoint)
        if not files:
            raise FactUnavailable("there is no consolidated.00.pth")
        path = files[min(files)]
        return Weights((torch_weights(checkpoint, path),))

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """params.json says the sizes of the whole model, and a file holds a rank's share."""
        raise FactUnavailable("params.json says the sizes of the whole model, a file holds a rank's share")

    def ranks(self, checkpoint: Checkpoint) -> Ranks:
        """One file for each model-parallel rank."""
        why = "each rank loads its own, and the rows or columns that it holds are in no other"
        family = RankFiles("the share of the weights", "consolidated.{:02d}.pth", _files(checkpoint), why)
        return Ranks((), (family,))


def _files(checkpoint: Checkpoint) -> dict[int, str]:
    found = ((_FILE.fullmatch(e.path), e.path) for e in checkpoint.listing)
    return {int(match[1]): path for match, path in found if match}
