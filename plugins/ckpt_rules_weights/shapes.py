"""The rule that compares tensors with the model's configuration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from ckpt_rules import FLOAT_DTYPES, Checkpoint, FactUnavailable, Place, Problem, Rule, Weights
from ckpt_rules_weights.architectures import UNKNOWN_FAMILY, Shape, Sizes, shapes_of
from ckpt_rules_weights.components import Wrong, has_components, of_components
from ckpt_rules_weights.kinds import Located, tensor_kinds
from ckpt_rules_weights.quantised import QUANTISED, is_declared


class ShapeVsConfig(Rule):
    """A tensor's shape is not what the model's configuration says.

    ## What it checks
    Vocabulary, hidden size, heads, intermediate size and experts of common architectures against config.json; for other
    architectures the rows of the token embedding. Channels, latents and the cross-attention dimension in diffusers
    models (`unet/config.json`). Quantised weights without a quantisation configuration are also reported.

    ## Why it matters
    The configuration is from another model or was changed after the save. Loading fails with a size mismatch, or the
    trained model is not the intended one.

    ## How to repair
    Add the configuration that matches these weights.
    """

    id = "weights/shape-vs-config"
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each kind of tensor that differs."""
        if has_components(checkpoint):
            yield from map(_problem, of_components(checkpoint))
            return
        weights, config = checkpoint.weights, checkpoint.config
        if any(f.path.startswith("adapter") for f in weights.files):
            raise FactUnavailable("adapter weights have different shapes")
        yield from _undeclared_quantisation(checkpoint, weights, config.values)
        sizes = Sizes.of(config.values)
        tensors = tensor_kinds(checkpoint)
        expected = _expected_shapes(config.values, sizes, tensors)
        wrong: dict[str, list[tuple[str, str, tuple[int, ...]]]] = defaultdict(list)
        for pattern, members in tensors.items():
            if kind := _kind(pattern, expected):
                wrong[kind] += [
                    (file.path, name, tensor.shape)
                    for file, name, tensor in members
                    if tensor.dtype in FLOAT_DTYPES and not _fits(tensor.shape, expected[kind])
                ]
        for kind, found in wrong.items():
            if not found:
                continue
            path, name, shape = found[0]
            yield _problem(Wrong(config.path, path, name, shape, expected[kind], len(found)))


def _problem(wrong: Wrong) -> Problem:
    meant = ", ".join("?" if n is None else str(n) for n in wrong.expected)
    more = f" (and {wrong.tensors - 1:,} more like it)" if wrong.tensors > 1 else ""
    return Problem(
        message=f"the tensor has shape {list(wrong.shape)} but {wrong.config} implies [{meant}]{more}",
        place=Place(path=wrong.path, tensor=wrong.name),
        help="add the configuration that matches these weights",
        data={"shape": list(wrong.shape), "expected": list(wrong.expected), "tensors": wrong.tensors},
    )


def _expected_shapes(
    config: Mapping[str, object], sizes: Sizes, tensors: Mapping[str, list[Located]]
) -> dict[str, Shape]:
    known = shapes_of(config)
    if known is None:
        # Several embeddings (text and vision, encoder and decoder) may have vocabularies of their own.
        embeddings = sum(len(members) for name, members in tensors.items() if name.endswith(tuple(UNKNOWN_FAMILY)))
        known = UNKNOWN_FAMILY if embeddings == 1 else {}
    return {kind: shape for kind, of in known.items() if (shape := of(sizes)) != (None, None)}


def _kind(pattern: str, expected: Mapping[str, Shape]) -> str | None:
    """The entry of the table that a name, its numbers read as `*`, ends with."""
    parts = pattern.split(".")
    return next((k for n in range(2, 6) if (k := ".".join(parts[-n:])) in expected), None)


def _fits(shape: tuple[int, ...], expected: Shape) -> bool:
    rows, columns = expected
    if rows is not None and columns is None:  # a family that is not known may pad its vocabulary
        return len(shape) == len(expected) and shape[0] >= rows
    return len(shape) == len(expected) and all(e is None or n == e for n, e in zip(shape, expected, strict=True))


def _undeclared_quantisation(
    checkpoint: Checkpoint, weights: Weights, config: Mapping[str, object]
) -> Iterator[Problem]:
    if "model_type" not in config or is_declared(checkpoint, config):
        return
    for file in weights.files:
        quantised = [n for n in file.tensors if QUANTISED.fullmatch(n)]
        if quantised:
            yield Problem(
                message=f"{len(quantised):,} tensors are quantised, but the configuration does not say how",
                place=Place(path=file.path, tensor=quantised[0]),
                help="add the `quantization_config` that the weights were made with to config.json",
                data={"tensors": len(quantised)},
            )
