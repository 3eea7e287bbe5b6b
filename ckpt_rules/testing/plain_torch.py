"""Build a valid checkpoint of the plain torch layout: `training_state.pth`, `config.json`, weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ckpt_rules.testing import files
from ckpt_rules.testing.directory import CheckpointDir
from ckpt_rules.testing.recipe import Parts, Recipe
from ckpt_rules.testing.tiny_llama import CONFIG


def build_plain_torch(  # noqa: PLR0913 - each keyword is one thing that a test may want different
    path: str | os.PathLike[str],
    *,
    epoch: int = 2,
    step: int = 0,
    total_batches: int = 10,
    accumulation: int = 1,
    updates: int | None = None,
    global_step: bool | int = True,
    weights: str | None = "safetensors",
    dtype: str = "float32",
    config: Mapping[str, Any] | None = None,
    optimizer: str | None = "AdamW",
    optimizer_options: Mapping[str, Any] | None = None,
    scheduler: str | None = "cosine",
    planned_updates: int | None = None,
    scaler: bool | None = False,
    rng: bool | str = True,
    state_file: str | None = None,
    extra: Mapping[str, object] | None = None,
    one_file: bool = False,
    legacy: bool = False,
    with_torch: bool | None = None,
) -> CheckpointDir:
    """Build a checkpoint that no rule finds fault with, of a tiny model that was really trained.

    epoch, step:       1-based epoch, and batches done in it; step 0 says that the epoch is complete
    total_batches:     batches per epoch
    accumulation:      batches per optimizer update; recorded as `gradient_accumulation_steps` unless 1
    updates:           what optimizer and scheduler count; by default what the counters imply
    global_step:       True records the updates that the counters imply, False nothing, a number itself
    weights:           `safetensors`, `bin`, `sharded`, `sharded-bin`, or None for none
    dtype:             of the weights and of the optimizer's moments: `float32`, `bfloat16` or `float16`
    config:            entries of `config.json` that differ; the model is built to fit them
    optimizer:         name of a class in `torch.optim`, or None; without torch `AdamW`, `Adam`, `SGD`
    optimizer_options: its options, `lr` among them
    scheduler:         `cosine`, `lambda`, `step`, `plateau`, or None; without torch `cosine`, `lambda`
    planned_updates:   updates at which the schedule ends; by default four times those made
    scaler:            True for a gradient scaler in use, False for the `{}` of a disabled one, None for no entry
    rng:               False for none; "numpy" for NumPy's state as well, with which `weights_only=True` fails
    state_file:        name of the training state, `training_state.pth` unless given
    extra:             further entries of the training state
    one_file:          everything, weights and configuration too, in one file, `checkpoint.pt` unless named
    legacy:            torch files in the format from before torch 1.6
    with_torch:        False to write the same files without torch; by default torch is used where it is installed
    """
    done = epoch * total_batches if step == 0 else (epoch - 1) * total_batches + step
    implied = done // accumulation
    made = implied if updates is None else updates
    model = {**CONFIG, "torch_dtype": dtype, **(config or {})}
    recipe = Recipe(
        config=model,
        updates=made,
        epochs=epoch if step == 0 else epoch - 1,
        optimizer=optimizer,
        options=optimizer_options or {},
        scheduler=scheduler,
        planned=planned_updates or max(4 * made, 100),
        scaler=scaler,
        rng=rng,
        dtype=dtype,
    )
    parts = _trained(recipe, with_torch=with_torch)
    state: dict[str, Any] = {"epoch": epoch, "step": step, "total_batches": total_batches}
    if global_step is not False:
        state["global_step"] = implied if global_step is True else global_step
    if accumulation != 1:
        state["gradient_accumulation_steps"] = accumulation
    state |= _state_dicts(parts)
    checkpoint = CheckpointDir(path, with_torch=with_torch)
    if one_file:
        state = {"model_state_dict": parts.weights, "config": model} | state
    else:
        checkpoint.write_json("config.json", model)
        _write_weights(checkpoint, parts.weights, weights, legacy=legacy)
    name = state_file or ("checkpoint.pt" if one_file else "training_state.pth")
    return checkpoint.write_torch(name, state | dict(extra or {}), legacy=legacy)


def _trained(recipe: Recipe, *, with_torch: bool | None) -> Parts:
    if files.has_torch() if with_torch is None else with_torch:
        from ckpt_rules.testing.train import train

        return train(recipe)
    from ckpt_rules.testing.pretend import pretend

    return pretend(recipe)


def _state_dicts(parts: Parts) -> dict[str, Any]:
    found = {
        "optimizer_state_dict": parts.optimizer,
        "scheduler_state_dict": parts.scheduler,
        "scaler_state_dict": parts.scaler,
        "rng_state": parts.rng,
    }
    return {name: value for name, value in found.items() if value is not None}


def _write_weights(checkpoint: CheckpointDir, weights: dict[str, Any], how: str | None, *, legacy: bool) -> None:
    match how:
        case None:
            return
        case "safetensors":
            checkpoint.write_safetensors("model.safetensors", weights, {"format": "pt"})
        case "bin":
            checkpoint.write_torch("pytorch_model.bin", weights, legacy=legacy)
        case "sharded" | "sharded-bin":
            _write_shards(checkpoint, weights, in_torch=how == "sharded-bin", legacy=legacy)
        case _:
            raise ValueError(f"weights={how!r}: choose safetensors, bin, sharded, sharded-bin or None")


def _write_shards(checkpoint: CheckpointDir, weights: dict[str, Any], *, in_torch: bool, legacy: bool) -> None:
    """Two shards and the index that says which tensor lies in which."""
    stem, suffix = ("pytorch_model", "bin") if in_torch else ("model", "safetensors")
    names = list(weights)
    half = len(names) // 2
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[:half], names[half:]), 1):
        file = f"{stem}-{number:05}-of-00002.{suffix}"
        tensors = {name: weights[name] for name in part}
        if in_torch:
            checkpoint.write_torch(file, tensors, legacy=legacy)
        else:
            checkpoint.write_safetensors(file, tensors, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(files.nbytes(tensor) for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    checkpoint.write_json(f"{stem}.{suffix}.index.json", index)
