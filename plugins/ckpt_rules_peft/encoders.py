"""What PEFT trains and does not save: encoders of prompts, of which an adapter keeps only what they gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpt_rules import TensorInfo, is_count

Shape = tuple[int, ...]

PROMPTS = "prompt_embeddings"
_INDICES = "_topk_indices"
_GATES, _DIRECTIONS = 4, 2
_MOST_LAYERS = 100


def behind(config: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> tuple[Shape, ...]:
    """Shapes of the parameters that were trained and are not in the adapter's file; none where it holds all of them."""
    kind = config.get("peft_type")
    if kind == "P_TUNING":
        return tuple(_prompt_encoder(config))
    if is_projected(config):
        return tuple(_projection(config))
    prompts = tensors.get(PROMPTS)
    frozen = config.get("num_frozen_tokens")
    if kind == "CARTRIDGE" and prompts and len(prompts.shape) == 2 and is_count(frozen):
        return ((max(prompts.shape[0] - int(frozen), 0), prompts.shape[1]),)
    vectors = config.get("num_vectors")
    if keeps_only_the_largest(config) and is_count(vectors):
        return tuple((*t.shape[:-1], int(vectors)) for name, t in tensors.items() if name.endswith(_INDICES))
    return ()


def is_projected(config: Mapping[str, object]) -> bool:
    """Whether the prefixes of prefix tuning came from a projection, which is not saved."""
    return config.get("peft_type") == "PREFIX_TUNING" and config.get("prefix_projection") is True


def keeps_only_the_largest(config: Mapping[str, object]) -> bool:
    """Whether VB-LoRA saved of its logits only the largest."""
    return config.get("peft_type") == "VBLORA" and config.get("save_only_topk_weights") is True


def _prompt_encoder(config: Mapping[str, object]) -> Iterator[Shape]:
    """The head of P-tuning; the embedding before it has the shape of the prompts."""
    sizes = config.get("token_dim"), config.get("encoder_hidden_size"), config.get("encoder_num_layers")
    dim, hidden, layers = (int(s) if is_count(s) else 0 for s in sizes)
    if config.get("encoder_reparameterization_type") == "LSTM":
        for layer in range(min(layers, _MOST_LAYERS)):
            width, gates = _DIRECTIONS * hidden if layer else dim, _GATES * hidden
            yield from ((gates, width), (gates, hidden), (gates,), (gates,)) * _DIRECTIONS
        yield from _linear(_DIRECTIONS * hidden, _DIRECTIONS * hidden)
        yield from _linear(_DIRECTIONS * hidden, dim)
        return
    for width, out in ((dim, hidden), (hidden, hidden), (hidden, dim)):
        yield from _linear(width, out)


def _projection(config: Mapping[str, object]) -> Iterator[Shape]:
    sizes = (config.get(key) for key in ("num_virtual_tokens", "token_dim", "encoder_hidden_size", "num_layers"))
    tokens, dim, hidden, layers = (int(s) if is_count(s) else 0 for s in sizes)
    yield (tokens, dim)
    yield from _linear(dim, hidden)
    yield from _linear(hidden, layers * 2 * dim)


def _linear(width: int, out: int) -> tuple[Shape, Shape]:
    return (out, width), (out,)
