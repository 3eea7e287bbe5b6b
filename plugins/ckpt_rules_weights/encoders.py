"""Names of the tensors of models that read text or images, by `model_type`.

Source: tiny models of each class, saved by transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ckpt_rules import is_count
from ckpt_rules_weights.family import Config, Family, Names, names, says

_POOLER = names("@pooler.dense.{weight,bias}")
_CLASSIFIER = names("classifier.{weight,bias}")
_DENSE_CLASSIFIER = names("classifier.{dense,out_proj}.{weight,bias}")
_SPANS = names("qa_outputs.{weight,bias}")
_PREDICTIONS = names(
    "cls.predictions.transform.{dense,LayerNorm}.{weight,bias} cls.predictions.bias|cls.predictions.decoder.bias "
    "cls.predictions.decoder.weight"
)
_SENTENCES = names("cls.seq_relationship.{weight,bias}")
_LM_HEAD = names("lm_head.{dense,layer_norm}.{weight,bias} lm_head.bias|lm_head.decoder.bias lm_head.decoder.weight")


def _electra(config: Config, layer: int | None) -> Names:
    width = config.get("embedding_size")
    projected = layer is None and is_count(width) and width != config.get("hidden_size")
    return names("embeddings_project.{weight,bias}") if projected else ()


def _deberta(config: Config, layer: int | None) -> Names:
    placed = layer is None and says(config, "position_biased_input", default=True)
    return names("embeddings.position_embeddings.weight") if placed else ()


def _modernbert(config: Config, layer: int | None) -> Names:
    norms = (
        ("embeddings.norm", "final_norm")
        if layer is None
        else ("mlp_norm",)
        if layer == 0
        else ("attn_norm", "mlp_norm")
    )
    found = [f"{norm}.weight" for norm in norms]
    if says(config, "norm_bias", default=False):
        found += [f"{norm}.bias" for norm in norms]
    if layer is not None and says(config, "attention_bias", default=False):
        found += names("attn.{Wqkv,Wo}.bias")
    if layer is not None and says(config, "mlp_bias", default=False):
        found += names("mlp.{Wi,Wo}.bias")
    return tuple(found)


def _vision_biases(config: Config, layer: int | None) -> Names:
    biased = layer is not None and says(config, "qkv_bias", default=True)
    return names("attention.attention.{query,key,value}.bias") if biased else ()


def _dinov2(config: Config, layer: int | None) -> Names:
    if layer is None:
        return names("embeddings.mask_token") if says(config, "use_mask_token", default=True) else ()
    swiglu = config.get("use_swiglu_ffn")
    feed = names("mlp.weights_{in,out}.{weight,bias}") if swiglu else names("mlp.fc{1,2}.{weight,bias}")
    return _vision_biases(config, layer) + feed


_BERT = Family(
    stem="Bert",
    prefix="bert",
    embedding="embeddings.word_embeddings.weight",
    base=names("embeddings.{position_embeddings,token_type_embeddings}.weight embeddings.LayerNorm.{weight,bias}"),
    stack="encoder.layer",
    layer=names(
        "attention.self.{query,key,value}.{weight,bias} attention.output.{dense,LayerNorm}.{weight,bias} "
        "intermediate.dense.{weight,bias} output.{dense,LayerNorm}.{weight,bias}"
    ),
    heads={
        "Model": (),
        "ForPreTraining": _PREDICTIONS + _SENTENCES + _POOLER,
        "ForMaskedLM": _PREDICTIONS,
        "LMHeadModel": _PREDICTIONS,
        "ForNextSentencePrediction": _SENTENCES + _POOLER,
        "ForSequenceClassification": _CLASSIFIER + _POOLER,
        "ForMultipleChoice": _CLASSIFIER + _POOLER,
        "ForTokenClassification": _CLASSIFIER,
        "ForQuestionAnswering": _SPANS,
    },
    output="cls.predictions.decoder.weight",
    tied=True,
)
_ROBERTA = replace(
    _BERT,
    stem="Roberta",
    prefix="roberta",
    heads={
        "Model": (),
        "ForMaskedLM": _LM_HEAD,
        "ForCausalLM": _LM_HEAD,
        "ForSequenceClassification": _DENSE_CLASSIFIER,
        "ForMultipleChoice": _CLASSIFIER + _POOLER,
        "ForTokenClassification": _CLASSIFIER,
        "ForQuestionAnswering": _SPANS,
    },
    output="lm_head.decoder.weight",
)
_GENERATOR = names(
    "generator_predictions.{dense,LayerNorm}.{weight,bias} generator_lm_head.bias generator_lm_head.weight"
)
_HEAD = names("head.{dense,norm}.weight")
_VIT = Family(
    stem="ViT",
    prefix="vit",
    embedding="embeddings.patch_embeddings.projection.weight",
    base=names("embeddings.{cls_token,position_embeddings} embeddings.patch_embeddings.projection.bias layernorm.{weight,bias}"),
    stack="encoder.layer",
    layer=names(
        "attention.attention.{query,key,value}.weight {attention.output,intermediate,output}.dense.{weight,bias} "
        "layernorm_{before,after}.{weight,bias}"
    ),
    heads={
        "Model": (),
        "ForImageClassification": _CLASSIFIER,
        "ForMaskedImageModeling": names("decoder.0.{weight,bias} @embeddings.mask_token"),
    },
    output="",
    more=_vision_biases,
    renames={
        r"^((?:(?:vit|deit)\.)*)layers\.(?=\d+\.)": r"\1encoder.layer.",
        r"\.attention\.q_proj\.": ".attention.attention.query.",
        r"\.attention\.k_proj\.": ".attention.attention.key.",
        r"\.attention\.v_proj\.": ".attention.attention.value.",
        r"\.attention\.o_proj\.": ".attention.output.dense.",
        r"\.mlp\.fc1\.": ".intermediate.dense.",
        r"\.mlp\.fc2\.": ".output.dense.",
    },
)  # fmt: skip

ENCODERS: Mapping[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": replace(_ROBERTA, stem="XLMRoberta"),
    "camembert": replace(_ROBERTA, stem="Camembert"),
    "mpnet": replace(
        _ROBERTA,
        stem="MPNet",
        prefix="mpnet",
        base=names("embeddings.position_embeddings.weight embeddings.LayerNorm.{weight,bias} encoder.relative_attention_bias.weight"),
        layer=names(
            "attention.attn.{q,k,v,o}.{weight,bias} attention.LayerNorm.{weight,bias} intermediate.dense.{weight,bias} "
            "output.{dense,LayerNorm}.{weight,bias}"
        ),
        heads={k: v for k, v in _ROBERTA.heads.items() if k != "ForCausalLM"},
    ),
    "distilbert": replace(
        _BERT,
        stem="DistilBert",
        prefix="distilbert",
        base=names("embeddings.position_embeddings.weight embeddings.LayerNorm.{weight,bias}"),
        stack="transformer.layer",
        layer=names(
            "attention.{q,k,v,out}_lin.{weight,bias} ffn.lin{1,2}.{weight,bias} {sa,output}_layer_norm.{weight,bias}"
        ),
        heads={
            "Model": (),
            "ForMaskedLM": names("vocab_{transform,layer_norm}.{weight,bias} vocab_projector.bias vocab_projector.weight"),
            "ForSequenceClassification": names("{pre_classifier,classifier}.{weight,bias}"),
            "ForMultipleChoice": names("{pre_classifier,classifier}.{weight,bias}"),
            "ForTokenClassification": _CLASSIFIER,
            "ForQuestionAnswering": _SPANS,
        },
        output="vocab_projector.weight",
        count=("n_layers", "num_hidden_layers"),
    ),
    "electra": replace(
        _BERT,
        stem="Electra",
        prefix="electra",
        heads={
            "Model": (),
            "ForCausalLM": _GENERATOR,
            "ForMaskedLM": _GENERATOR,
            "ForPreTraining": names("discriminator_predictions.{dense,dense_prediction}.{weight,bias}"),
            "ForSequenceClassification": _DENSE_CLASSIFIER,
            "ForTokenClassification": _CLASSIFIER,
            "ForQuestionAnswering": _SPANS,
        },
        output="generator_lm_head.weight",
        more=_electra,
    ),
    "deberta-v2": replace(
        _BERT,
        stem="DebertaV2",
        prefix="deberta",
        base=names("embeddings.LayerNorm.{weight,bias}"),
        layer=names(
            "attention.self.{query,key,value}_proj.{weight,bias} attention.output.{dense,LayerNorm}.{weight,bias} "
            "intermediate.dense.{weight,bias} output.{dense,LayerNorm}.{weight,bias}"
        ),
        heads={
            "Model": (),
            "ForSequenceClassification": _CLASSIFIER + names("pooler.dense.{weight,bias}"),
            "ForMultipleChoice": _CLASSIFIER + names("pooler.dense.{weight,bias}"),
            "ForTokenClassification": _CLASSIFIER,
            "ForQuestionAnswering": _SPANS,
        },
        output="",
        more=_deberta,
    ),
    "modernbert": replace(
        _BERT,
        stem="ModernBert",
        prefix="model",
        embedding="embeddings.tok_embeddings.weight",
        base=(),
        stack="layers",
        layer=names("attn.{Wqkv,Wo}.weight mlp.{Wi,Wo}.weight"),
        heads={
            "Model": (),
            "ForMaskedLM": _HEAD + names("decoder.weight"),
            **dict.fromkeys(
                ("ForMultipleChoice", "ForQuestionAnswering", "ForSequenceClassification", "ForTokenClassification"),
                _HEAD + _CLASSIFIER,
            ),
        },
        output="decoder.weight",
        more=_modernbert,
    ),
    "vit": _VIT,
    "deit": replace(
        _VIT,
        stem="DeiT",
        prefix="deit",
        base=_VIT.base + names("embeddings.distillation_token"),
        heads={
            **_VIT.heads,
            "ForImageClassificationWithTeacher": names("{cls,distillation}_classifier.{weight,bias}"),
        },
    ),
    "dinov2": replace(
        _VIT,
        stem="Dinov2",
        prefix="dinov2",
        layer=names(
            "attention.attention.{query,key,value}.weight attention.output.dense.{weight,bias} "
            "layer_scale{1,2}.lambda1 norm{1,2}.{weight,bias}"
        ),
        heads={"Model": (), "ForImageClassification": _CLASSIFIER},
        more=_dinov2,
        renames={k: v for k, v in _VIT.renames.items() if ".attention" in v},
    ),
}  # fmt: skip
"""Families by `model_type`."""
