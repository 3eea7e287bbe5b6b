"""numerics/ema-is-model: a moving average of the weights that is the weights themselves."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from pydantic import Field

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Located,
    Measure,
    Measured,
    Place,
    Problem,
    Reads,
    Rule,
    Severity,
    Wanted,
    is_count,
    located_tensors,
    measured_weights,
    plain,
    read_all,
)

_KEYS = frozenset({
    "ema", "ema_state_dict", "ema_model", "ema_model_state_dict", "model_ema", "state_dict_ema", "ema_params", "shadow_params",
})  # fmt: skip
_FILE = re.compile(r"(?:.*[-_.])?ema(?:[-_.].*)?", re.IGNORECASE)
_COUNTERS = ("optimization_step", "num_updates", "updates")

Print = tuple[str, tuple[int, ...], int]
"""Dtype, shape and checksum of a tensor."""


class EmaIsModel(Rule):
    """The moving average of the weights is bit-for-bit equal to the weights.

    ## What it checks
    After many updates (`least_updates`, counted from the start of the average): that not every tensor of the average
    (`unet_ema/`, `ema_state_dict`, `ema.safetensors`) has exactly the bytes of a weight of the model. If the average
    has a decay of 0, or the learning rate is 0, the two are equal by design.

    ## Why it matters
    The average was copied over the weights for an evaluation and not reverted, or was never updated. Training continues
    from weights that do not match the optimizer's moments, or an evaluation of the average evaluates the plain model.

    ## How to repair
    Resume from a save in which the two differ. In the script, restore the weights after the evaluation, before the
    save.
    """

    id = "numerics/ema-is-model"
    severity = Severity.WARNING
    tags = frozenset({"numerics", "resume"})
    reads = Reads.BYTES

    least_updates: int = Field(
        default=100, ge=1, description="Number of updates after which the average must differ from the weights."
    )

    def wanted(self, checkpoint: Checkpoint) -> Wanted:
        """The checksums of all tensors, where there is an average to compare."""
        return Wanted(Measure.FINGERPRINT) if checkpoint.fact(_averages) else Wanted()

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each average."""
        averages = checkpoint.fact(_averages)
        if not averages:
            raise FactUnavailable("there is no moving average of the weights")
        done = _updates(checkpoint)
        if done is None or _stands_still(checkpoint):
            raise FactUnavailable("nothing shows that the weights have changed since the average began")
        known = read_all(checkpoint, Wanted(Measure.FINGERPRINT))
        own = {(t.path, t.name) for tensors in averages.values() for t in tensors}
        model = {
            _print(m)
            for _, m in measured_weights(checkpoint, Measure.FINGERPRINT)
            if (m.tensor.path, m.tensor.name) not in own
        }
        for where, tensors in averages.items():
            found = {_print(m) for m in known.measured(tensors)}
            updates = _since(checkpoint, where, done)
            if found and None not in found and updates >= self.least_updates and found <= model:
                yield Problem(
                    message=f"all {len(tensors):,} tensors of the moving average are bit-for-bit equal to weights of "
                    f"the model after {updates:,} "
                    "updates",
                    place=Place(path=tensors[0].path, tensor=tensors[0].name),
                    help="resume from a save in which they differ; after evaluating the average, restore the weights "
                    "before saving",
                    data={"tensors": len(tensors), "updates": updates},
                )


def _averages(checkpoint: Checkpoint) -> dict[str, list[Located]]:
    """Floating-point tensors with elements, by the directory, file or key of the average that they are part of."""
    found: dict[str, list[Located]] = defaultdict(list)
    for tensor in located_tensors(checkpoint):
        folder, _, name = tensor.path.rpartition("/")
        key = tensor.name.partition(".")[0]
        if not tensor.is_float or len(tensor.shape) == 0:
            continue
        if folder.endswith("_ema"):
            found[folder].append(tensor)
        elif not folder and _FILE.fullmatch(name.rpartition(".")[0]):
            found[name].append(tensor)
        elif not folder and key in _KEYS:
            found[key].append(tensor)
    return dict(found)


def _print(measured: Measured) -> Print | None:
    tensor, fingerprint = measured.tensor, measured.values.fingerprint
    return None if fingerprint is None else (tensor.dtype, tensor.shape, fingerprint)


def _updates(checkpoint: Checkpoint) -> int | None:
    """Updates done, by the optimizer or else by the trainer."""
    try:
        counted = checkpoint.optimizer.updates
    except FactUnavailable:
        counted = None
    if counted is not None:
        return counted
    try:
        return checkpoint.progress.global_step
    except FactUnavailable:
        return None


def _stands_still(checkpoint: Checkpoint) -> bool:
    """Whether every learning rate is 0."""
    try:
        rates = [plain(group.options.get("lr")) for group in checkpoint.optimizer.groups]
    except FactUnavailable:
        return False
    return bool(rates) and all(rate == 0 for rate in rates)


def _since(checkpoint: Checkpoint, where: str, done: int) -> int:
    """Updates since the average began, by its own configuration where it has one; 0 where it keeps nothing of the past."""
    options = _options(checkpoint, where)
    if any(plain(options.get(name)) == 0 for name in ("decay", "max_decay")):
        return 0
    counts = [plain(options.get(name)) for name in _COUNTERS]
    start = plain(options.get("update_after_step"))
    least = min([done, *(int(c) for c in counts if is_count(c))])
    return least - (int(start) if is_count(start) else 0)


def _options(checkpoint: Checkpoint, where: str) -> Mapping[object, object]:
    """What is said of an average: `config.json` in its directory, or its own entries in the state."""
    try:
        values = (
            checkpoint.files.contents(f"{where}/config.json")
            if checkpoint.listing.has_file(f"{where}/config.json")
            else checkpoint.state.values.get(where)
        )
    except FactUnavailable:
        return {}
    return values if isinstance(values, Mapping) else {}
