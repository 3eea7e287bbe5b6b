"""numerics/all-zero, numerics/constant, numerics/huge and numerics/fp16-range: weights that no training leaves like that."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator

from pydantic import Field

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Measure,
    Measured,
    Place,
    Problem,
    Reads,
    Rule,
    Severity,
    Wanted,
    measured_tensors,
)
from ckpt_rules_numerics.moments import is_moment
from ckpt_rules_numerics.tensors import each_once, is_matrix, listed, weights

FP16_LARGEST = 65504.0
_NOT_TRAINED = re.compile(
    r"mask|scale|zero|running_|(?:^|[._])(?:mean|var|std|freqs?|inv_freq|position_ids|token_type_embeddings)\b",
    re.IGNORECASE,
)
_ADDED_AT_ZERO = re.compile(
    r"lora_B|lora_embedding_B|lora_magnitude|vera_lambda"  # PEFT
    r"|controlnet|zero_conv"  # ControlNet, in diffusers and as its authors release it
    r"|adaLN",  # diffusion transformers
    re.IGNORECASE,
)
"""Parts that begin at zero, so that they change nothing of the model that they are added to."""
_FIRST_TRAINED = 2
"""Updates after which weights that begin at zero are no longer there: the first one of a warmup has a learning rate of 0."""
_FEW = 64


class _OfWeights(Rule):
    """What the rules about the range of weights have in common."""

    tags = frozenset({"numerics"})
    reads = Reads.BYTES
    severity = Severity.WARNING

    def wanted(self, checkpoint: Checkpoint) -> Wanted:
        """The range of every tensor."""
        return Wanted(Measure.RANGE)


class AllZero(_OfWeights):
    """A weight matrix is zero throughout.

    ## What it checks
    Every floating-point weight with at least two dimensions longer than 1, except quantisation scales, masks and
    statistics. Before the second update, anything that starts at zero may still be zero; what adapters and ControlNets
    add at zero (`lora_B`) is checked only if the optimizer has counted two updates or more; if there are several
    adapters, some may never have been trained.

    ## Why it matters
    A layer of zeros outputs nothing. The usual causes are a tensor that was allocated and never filled, a shard that
    was lost to a full disk, or an adapter whose gradients never arrived.

    ## How to repair
    Resume from an earlier save; if the tensor is zero there too, check whether it is trained at all.
    """

    id = "numerics/all-zero"

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file with such weights."""
        updates = _updates(checkpoint)
        if updates is not None and updates < _FIRST_TRAINED:
            raise FactUnavailable(f"after {updates} optimizer updates, weights may still be zero")

        added: dict[str, list[bool]] = defaultdict(list)

        def is_empty(name: str, measured: Measured) -> bool:
            values = measured.values
            if updates is None and _ADDED_AT_ZERO.search(name):
                return False
            zero = is_matrix(measured) and values.constant and values.smallest == 0 and not _NOT_TRAINED.search(name)
            if is_matrix(measured) and _ADDED_AT_ZERO.search(name):
                added[measured.tensor.path].append(zero)
            return zero

        for path, names, count in list(_by_file(checkpoint, is_empty)):
            if len(names) == len(added[path]) and all(added[path]) and not all(map(all, added.values())):
                continue  # another adapter was the active one
            yield Problem(
                message=f"{_are(names, count, 'zero throughout')}",
                place=Place(path=path, tensor=names[0]),
                help="resume from an earlier save; if it is zero there too, check whether the tensor is trained at all",
                data={"tensors": names[:1000], "count": len(names), "of": count, "updates": updates},
            )


class Constant(_OfWeights):
    """All values of a weight matrix are the same number, and it is not zero.

    ## What it checks
    Every floating-point weight with at least two dimensions longer than 1 and 64 elements or more. Norms, quantisation
    scales, masks and statistics are not checked.

    ## Why it matters
    Units that start out equal get equal gradients and stay equal: the layer has one unit's capacity. Memory that was
    filled with a pattern and never written also looks like this.

    ## How to repair
    Resume from an earlier save, and check how the layer is initialised.
    """

    id = "numerics/constant"

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file with such weights."""

        def is_constant(name: str, measured: Measured) -> bool:
            values = measured.values
            large = is_matrix(measured) and values.numel >= _FEW
            return large and values.constant and values.smallest != 0 and not _may_be_constant(name)

        for path, names, count in _by_file(checkpoint, is_constant):
            yield Problem(
                message=_are(names, count, "the same number throughout"),
                place=Place(path=path, tensor=names[0]),
                help="resume from an earlier save, and check how these layers are initialised",
                data={"tensors": names[:1000], "count": len(names), "of": count},
            )


def _may_be_constant(name: str) -> bool:
    return bool(
        _NOT_TRAINED.search(name) or re.search(r"norm|(?:^|[._])ln|gamma|layer_?scale|alpha", name, re.IGNORECASE)
    )


class Huge(_OfWeights):
    """A weight or a moment of the optimizer is larger than training makes them.

    ## What it checks
    The absolute maximum of every floating-point weight, except masks, statistics and quantisation scales, against
    `limit`, and that of every moment that an optimizer keeps of a weight against `moment_limit`.

    ## Why it matters
    Weights of a healthy model rarely exceed 100. A value of a million suggests a flipped exponent bit or a run about to
    diverge.

    ## How to repair
    Compare with an earlier save. A single value that jumped means a damaged file; many mean that the run is diverging.
    """

    id = "numerics/huge"

    limit: float = Field(default=1e6, gt=0, description="No weight should exceed this absolute value.")
    moment_limit: float = Field(default=1e15, gt=0, description="No moment should exceed this absolute value.")

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file with such weights, one for each with such moments."""
        moments = [
            (m.tensor.name, m)
            for m in each_once(measured_tensors(checkpoint, Measure.RANGE))
            if is_moment(m.tensor.name)
        ]
        yield from _beyond("moments", moments, self.moment_limit)
        trained = [(n, m) for n, m in weights(checkpoint, Measure.RANGE) if not _NOT_TRAINED.search(n)]
        yield from _beyond("weights", trained, self.limit)


def _beyond(what: str, tensors: list[tuple[str, Measured]], limit: float) -> Iterator[Problem]:
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    count: dict[str, int] = defaultdict(int)
    for name, measured in tensors:
        path, peak = measured.tensor.path, measured.values.peak
        count[path] += 1
        if peak is not None and peak > limit and measured.tensor.shape:
            found[path].append((peak, name))
    for path, bad in found.items():
        peak, worst = max(bad)
        yield Problem(
            message=f"{len(bad):,} of {count[path]:,} {what} exceed {limit:g} in absolute value: {worst} reaches "
            f"{peak:.6g}",
            place=Place(path=path, tensor=worst),
            help="compare with an earlier save: a single value that jumped means a damaged file, many mean that the "
            "run is diverging",
            data={"tensors": [name for _, name in bad[:1000]], "count": len(bad), "of": count[path], "peak": peak},
        )


class Fp16Range(_OfWeights):
    """Training runs in float16, but a weight is outside the range of float16.

    ## What it checks
    If a gradient scaler is enabled or the configuration says float16: that no weight that is stored in a wider dtype
    exceeds 65,504 in absolute value.

    ## Why it matters
    Cast to float16 for the forward pass, it is infinite, and the loss is NaN on the first batch.

    ## How to repair
    Resume in bfloat16, or from an earlier save with a lower learning rate.
    """

    id = "numerics/fp16-range"

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file with such weights."""
        if not _is_fp16(checkpoint):
            raise FactUnavailable("nothing shows that training runs in float16")
        peaks: dict[str, float] = {}

        def is_beyond(name: str, measured: Measured) -> bool:
            peaks[name] = measured.values.peak or 0.0
            wide = measured.tensor.dtype in ("float32", "float64", "bfloat16")
            return wide and is_matrix(measured) and peaks[name] > FP16_LARGEST

        for path, names, count in _by_file(checkpoint, is_beyond):
            worst = max(names, key=peaks.__getitem__)
            yield Problem(
                message=f"{len(names):,} of {count:,} weights exceed {FP16_LARGEST:,.0f}, the largest float16 number: "
                f"{worst} "
                f"reaches {peaks[worst]:.6g}",
                place=Place(path=path, tensor=worst),
                help="resume in bfloat16, or from an earlier save with a lower learning rate",
                data={"tensors": names[:1000], "count": len(names), "of": count, "peak": peaks[worst]},
            )


def _is_fp16(checkpoint: Checkpoint) -> bool:
    try:
        if checkpoint.scaler.enabled:
            return True
    except FactUnavailable:
        pass
    try:
        values = checkpoint.config.values
    except FactUnavailable:
        return False
    return str(values.get("dtype", values.get("torch_dtype"))).removeprefix("torch.") == "float16"


def _updates(checkpoint: Checkpoint) -> int | None:
    try:
        return checkpoint.optimizer.updates
    except FactUnavailable:
        return None


def _by_file(checkpoint: Checkpoint, is_bad: Callable[[str, Measured], bool]) -> Iterator[tuple[str, list[str], int]]:
    """Each file with the names of its bad weights, and how many weights were looked at in it."""
    bad: dict[str, list[str]] = defaultdict(list)
    count: dict[str, int] = defaultdict(int)
    for name, measured in weights(checkpoint, Measure.RANGE):
        count[measured.tensor.path] += 1
        if is_bad(name, measured):
            bad[measured.tensor.path].append(name)
    for path, names in bad.items():
        yield path, names, count[path]


def _are(names: list[str], count: int, what: str) -> str:
    verb = "is" if len(names) == 1 else "are"
    return f"{len(names):,} of {count:,} weights {verb} {what}: {listed(names)}"
