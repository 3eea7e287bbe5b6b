"""How far training got, and what `load_checkpoint` does with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpt_rules import Contradiction, Progress, ResumePlan, is_count, plain
from ckpt_rules_deepspeed.states import counted, part

_OWN = frozenset({
    "module", "buffer_names", "optimizer", "param_shapes", "frozen_param_shapes", "frozen_param_fragments", "shared_params",
    "lr_scheduler", "data_sampler", "random_ltd", "sparse_tensor_module_names", "skipped_steps", "global_steps",
    "global_samples", "dp_world_size", "mp_world_size", "num_experts", "ds_config", "ds_version",
    "checkpoint_parallel_dimensions", "universal_checkpoint_info",
})  # fmt: skip
_SCHEDULER = "lr_scheduler"


def progress_of(values: Mapping[object, object]) -> Progress:
    """From the counters of the model states: DeepSpeed counts updates, and skips those that overflowed."""
    steps, skipped = counted(values, "global_steps"), counted(values, "skipped_steps") or 0
    made = None if steps is None else max(steps - skipped, 0)
    accumulation = counted(part(values, "ds_config"), "gradient_accumulation_steps") or 1
    return Progress(
        global_step=steps,
        accumulation=accumulation,
        expected_updates=made,
        exact=True,
        notes=tuple(_notes(values)),
        plan=ResumePlan(_sentence(steps, skipped), from_update=made),
    )


def _sentence(steps: int | None, skipped: int) -> str:
    done = "an unknown number of steps" if steps is None else f"{steps:,} step{'' if steps == 1 else 's'}"
    lost = f", of which {skipped:,} overflowed and made no update" if skipped else ""
    return (
        f"load_checkpoint restores the state after {done}{lost}; it does not skip data or set the epoch: the script "
        "must do that from its client_state; no random-number state is saved"
    )


def _notes(values: Mapping[object, object]) -> Iterator[str]:
    own = {k: plain(v) for k, v in values.items() if isinstance(k, str) and k not in _OWN}
    said = [f"{name} {value}" for name, value in own.items() if is_count(value)]
    if said:
        yield f"the script's client_state says {', '.join(said)}"
    steps, samples, batch = counted(values, "global_steps"), counted(values, "global_samples"), _batch(values)
    if steps is not None and samples is not None and batch and samples != steps * batch:
        yield f"global_samples is {samples:,}, and {steps:,} steps of {batch:,} make {steps * batch:,}: the batch size changed"


def _batch(values: Mapping[object, object]) -> int | None:
    """Samples in an update, by the configuration; unknown under AutoTP, which counts its shares as if they had data of their own."""
    config = part(values, "ds_config")
    if part(config, "tensor_parallel"):
        return None
    micro, ranks = counted(config, "train_micro_batch_size_per_gpu"), counted(values, "dp_world_size")
    if not micro or not ranks:
        return counted(config, "train_batch_size")
    return micro * ranks * (counted(config, "gradient_accumulation_steps") or 1)


def contradictions_in(path: str, values: Mapping[object, object]) -> Iterator[Contradiction]:
    """What DeepSpeed's own arithmetic can't have brought about."""
    steps = counted(values, "global_steps")
    if steps is None:
        return
    skipped, samples = counted(values, "skipped_steps") or 0, counted(values, "global_samples")
    if skipped > steps:
        yield Contradiction(path, "skipped_steps", f"skipped_steps is {skipped:,}, but global_steps is only {steps:,}")
    elif (last := _last_iteration(values)) is not None and not steps - skipped <= last + 1 <= steps:
        key = f"{_SCHEDULER}.last_batch_iteration"
        yield Contradiction(path, key, f"{key} is {last:,}, but global_steps is {steps:,}: it should be {steps - 1:,}")
    if samples is not None and samples < steps:
        yield Contradiction(
            path, "global_samples", f"global_samples is {samples:,}, which is less than global_steps, {steps:,}"
        )


def _last_iteration(values: Mapping[object, object]) -> int | None:
    """What DeepSpeed's own schedulers count, from -1; torch's have another name for it."""
    value = plain(part(values, _SCHEDULER).get("last_batch_iteration"))
    return int(value) if value == -1 or is_count(value) else None
