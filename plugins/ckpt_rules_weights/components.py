"""The shapes of the best-known tensors in diffusers' models, by the `config.json` that lies beside their weights.

Source: tiny models of each class, saved by diffusers 0.42 and compared with their config.json.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from ckpt_rules import Checkpoint, FactUnavailable, TensorInfo, find_weights, is_count

Shape = tuple[int | None, ...]
Config = Mapping[str, object]

_BLOCK = re.compile(r"down_blocks\.(\d{1,4})\.")
_ANY = "*"


class Wrong(NamedTuple):
    """Tensors of one kind whose shape is not what a configuration implies.

    config: path of the configuration
    path:   of the file that holds the first of them
    """

    config: str
    path: str
    name: str
    shape: tuple[int, ...]
    expected: Shape
    tensors: int


def of_components(checkpoint: Checkpoint) -> Iterator[Wrong]:
    """In the directory itself and in those below it, each with a configuration and weights of its own."""
    for path, config, shapes in _described(checkpoint):
        folder = path.rpartition("/")[0]
        try:
            weights = checkpoint.fact(find_weights, folder)
        except FactUnavailable:
            continue
        found: dict[tuple[str, Shape], list[tuple[str, str, TensorInfo]]] = defaultdict(list)
        for file, name, tensor in weights.items():
            for kind, of in shapes.items():
                expected = of(config, name) if _is_of(kind, name) else ()
                if expected and not _fits(tensor.shape, expected):
                    found[kind, expected].append((file.path, name, tensor))
        for (_, expected), members in found.items():
            file_path, name, tensor = members[0]
            yield Wrong(path, file_path, name, tensor.shape, expected, len(members))


def has_components(checkpoint: Checkpoint) -> bool:
    """Whether there is a model of diffusers whose shapes are known."""
    return next(_described(checkpoint), None) is not None


def _described(checkpoint: Checkpoint) -> Iterator[tuple[str, Config, Mapping[str, Of]]]:
    for entry in checkpoint.listing.files("config.json"):
        if entry.path.count("/") > 1:
            continue
        try:
            config = checkpoint.files.contents(entry.path)
        except FactUnavailable:
            continue
        name = config.get("_class_name") if isinstance(config, Mapping) else None
        if isinstance(config, Mapping) and isinstance(name, str) and name in SHAPES:
            yield entry.path, {str(k): v for k, v in config.items()}, SHAPES[name]


def _is_of(kind: str, name: str) -> bool:
    return name.endswith(kind[1:]) if kind.startswith(_ANY) else name == kind


def _fits(shape: tuple[int, ...], expected: Shape) -> bool:
    pairs = zip(shape, expected, strict=False)
    return len(shape) == len(expected) and all(e is None or n == e for n, e in pairs)


Of = Callable[[Config, str], Shape]
"""The shape that a configuration implies for a tensor of this name; () where it says nothing of it."""


def _size(value: object) -> int | None:
    return int(value) if is_count(value) and value > 0 else None


def _channels(config: Config, at: int) -> int | None:
    channels = config.get("block_out_channels")
    return _size(channels[at]) if isinstance(channels, list | tuple) and channels else None


def _product(config: Config, *keys: str) -> int | None:
    product = 1
    for key in keys:
        size = _size(config.get(key))
        if size is None:
            return None
        product *= size
    return product


def _conv(outputs: Callable[[Config], int | None], inputs: Callable[[Config], int | None]) -> Of:
    return lambda config, _: (outputs(config), inputs(config), None, None)


def _linear(outputs: Callable[[Config], int | None], inputs: Callable[[Config], int | None]) -> Of:
    return lambda config, _: (outputs(config), inputs(config))


def _key(key: str) -> Callable[[Config], int | None]:
    return lambda config: _size(config.get(key))


def _first(config: Config) -> int | None:
    return _channels(config, 0)


def _last(config: Config) -> int | None:
    return _channels(config, -1)


def _inner(config: Config) -> int | None:
    return _product(config, "num_attention_heads", "attention_head_dim")


def _two_latents(config: Config) -> int | None:
    latent = _size(config.get("latent_channels"))
    return 2 * latent if latent else None


def _attended(config: Config, name: str) -> Shape:
    """The text that cross-attention reads, which may differ from block to block on the way down."""
    dims = config.get("cross_attention_dim")
    if isinstance(dims, list):
        block = _BLOCK.match(name)
        number = int(block[1]) if block else len(dims)
        dims = dims[number] if number < len(dims) else None
    size = _size(dims)
    return (None, size) if size else ()


_UNET: Mapping[str, Of] = {
    "conv_in.weight": _conv(_first, _key("in_channels")),
    "conv_out.weight": _conv(_key("out_channels"), _first),
}

SHAPES: Mapping[str, Mapping[str, Of]] = {
    "UNet2DModel": _UNET,
    "UNet2DConditionModel": {**_UNET, "*.attn2.to_k.weight": _attended},
    "ControlNetModel": {"conv_in.weight": _UNET["conv_in.weight"], "*.attn2.to_k.weight": _attended},
    "AutoencoderKL": {
        "encoder.conv_in.weight": _conv(_first, _key("in_channels")),
        "encoder.conv_out.weight": _conv(_two_latents, _last),
        "decoder.conv_in.weight": _conv(_last, _key("latent_channels")),
        "decoder.conv_out.weight": _conv(_key("out_channels"), _first),
    },
    "FluxTransformer2DModel": {
        "x_embedder.weight": _linear(_inner, _key("in_channels")),
        "context_embedder.weight": _linear(_inner, _key("joint_attention_dim")),
    },
    "SD3Transformer2DModel": {
        "pos_embed.proj.weight": _conv(_inner, _key("in_channels")),
        "context_embedder.weight": _linear(_key("caption_projection_dim"), _key("joint_attention_dim")),
    },
}
"""By `_class_name`: expected shapes by a tensor's name, or by its end where that begins with `*`."""
