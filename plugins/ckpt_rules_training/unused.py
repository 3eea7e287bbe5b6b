"""Whether parameters without optimizer state may never have had a gradient: frozen, or of a part that no batch has used.

No file names the parameters of an optimizer that counts them, so this goes by shapes: what the weights have and the moments
have not. Parts are left out of training as a whole: a layer, an expert, a head, or the same parameter in every layer. What no
such parts add up to was lost.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from ckpt_rules import Checkpoint, OptimizerState
from ckpt_rules_training.maybe import maybe

Shape = tuple[int, ...]
Shapes = Counter[Shape]

_NUMBER = re.compile(r"(?:^|\.)\d+(?=\.)")
_BUFFERS = re.compile(
    r".*(?:running_mean|running_var|num_batches_tracked|position_ids|inv_freq|attn\.bias|masked_bias)"
)
_MOMENTS = frozenset({"exp_avg", "momentum_buffer", "square_avg", "sum", "exp_inf"})
_MOST_TRIED = 1_000
_MOST_WEIGHTS = 20_000
_DEEPEST = 200


def explains_unused(checkpoint: Checkpoint, optimizer: OptimizerState, bare: int) -> bool:
    """Whether that many parameters may be unused; True where it can't be told."""
    found = maybe(lambda: checkpoint.weights.tensors)
    if not found or len(found) > _MOST_WEIGHTS or len(checkpoint.optimizers) > 1:
        return True
    shapes = {n: t.shape for n, t in found.items() if "float" in t.dtype and not _BUFFERS.fullmatch(n)}
    moments = [_shape_of(s.tensors) for s in optimizer.states.values() if s.tensors]
    absent = Counter(shapes.values())
    absent.subtract(Counter(s for s in moments if s is not None))
    if None in moments or any(n < 0 for n in absent.values()) or absent.total() != bare:
        return True  # frozen or tied weights, or other tensors: which of the weights have no state can't be told
    return _Cover(_parts(shapes)).covers(+absent)


def _shape_of(tensors: Mapping[str, object]) -> Shape | None:
    shape = next((getattr(t, "shape", None) for n, t in tensors.items() if n in _MOMENTS), None)
    return shape if isinstance(shape, tuple) else None


def _parts(shapes: Mapping[str, Shape]) -> list[Shapes]:
    """What may be left out of training as a whole, each by the shapes that it consists of."""
    parts: dict[str, list[Shape]] = defaultdict(list)
    for name, shape in shapes.items():
        numbers = list(_NUMBER.finditer(name))
        for match in numbers:
            parts[f"unit {name[: match.end()]}"].append(shape)
        if numbers:
            parts[f"kind {_NUMBER.sub('.*', name)}"].append(shape)
        else:
            parts[f"module {name.rpartition('.')[0] or name}"].append(shape)
    lone = {f"kind {_NUMBER.sub('.*', n)}" for n in shapes}
    return [Counter(s) for name, s in parts.items() if len(s) > 1 or name not in lone]


class _Cover:
    """A search for parts that add up to given shapes, given up after so many steps."""

    def __init__(self, parts: list[Shapes]) -> None:
        self.parts = list({tuple(sorted(p.items())): p for p in parts}.values())
        self.parts.sort(key=lambda p: -p.total())
        self.tried = 0
        self.failed: set[tuple[tuple[Shape, int], ...]] = set()

    def covers(self, absent: Shapes, depth: int = 0) -> bool:
        """Whether parts add up to just these; True where it would take too long to tell."""
        if not absent:
            return True
        key = tuple(sorted(absent.items()))
        if key in self.failed:
            return False
        self.tried += 1
        if self.tried > _MOST_TRIED or depth > _DEEPEST:
            return True
        rarest = min(absent, key=lambda shape: (absent[shape], shape))
        for part in self.parts:
            if rarest in part and part <= absent and self.covers(absent - part, depth + 1):
                return True
        self.failed.add(key)
        return False
