"""Rules about the model weights of a checkpoint."""

from __future__ import annotations

from ckpt_rules import Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The `weights/` family."""
    from ckpt_rules_weights.broken import BrokenSafetensors, BrokenTorchFile
    from ckpt_rules_weights.config_fields import BadConfigField
    from ckpt_rules_weights.config_rules import DtypeVsConfig, SizeVsConfig, Tied
    from ckpt_rules_weights.content import EmptyTensors, Missing, NoTensors
    from ckpt_rules_weights.layers import LayerGap
    from ckpt_rules_weights.missing_tensor import MissingTensor
    from ckpt_rules_weights.misspelt import MisspeltTensor
    from ckpt_rules_weights.names import WrapperPrefix
    from ckpt_rules_weights.not_float import NotFloat
    from ckpt_rules_weights.shapes import ShapeVsConfig
    from ckpt_rules_weights.shards import DuplicateTensor, IndexTotal, MissingShard, Unindexed
    from ckpt_rules_weights.storage import MixedDtypes, StorageBloat
    from ckpt_rules_weights.vocabulary import VocabRows

    return [
        BadConfigField,
        BrokenSafetensors,
        BrokenTorchFile,
        DtypeVsConfig,
        DuplicateTensor,
        EmptyTensors,
        IndexTotal,
        LayerGap,
        Missing,
        MissingShard,
        MissingTensor,
        MisspeltTensor,
        MixedDtypes,
        NoTensors,
        NotFloat,
        ShapeVsConfig,
        SizeVsConfig,
        StorageBloat,
        Tied,
        Unindexed,
        VocabRows,
        WrapperPrefix,
    ]
