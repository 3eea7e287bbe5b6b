"""The parts of a trained checkpoint without torch: what training leaves behind, with made-up numbers in the tensors."""

from __future__ import annotations

import random
import struct
from typing import Any

from ckpt_rules.testing.recipe import Parts, Recipe, is_decayed
from ckpt_rules.testing.tensor import Tensor
from ckpt_rules.testing.tiny_llama import parameter_shapes

_COMMON = {"maximize": False, "foreach": None, "differentiable": False}
_ADAM = {"betas": (0.9, 0.999), "eps": 1e-08, "amsgrad": False, "capturable": False, "fused": None}
_OPTIONS: dict[str, dict[str, Any]] = {
    "AdamW": _COMMON | _ADAM | {"decoupled_weight_decay": True},
    "Adam": _COMMON | _ADAM | {"decoupled_weight_decay": False},
    "SGD": _COMMON | {"momentum": 0, "dampening": 0, "nesterov": False, "fused": None},
}


def pretend(recipe: Recipe) -> Parts:
    """State dictionaries of the same keys, dtypes, shapes and counters as torch's, with tensors of the kit."""
    shapes = parameter_shapes(recipe.config)
    return Parts(
        weights={name: _weight(recipe, name, shape) for name, shape in shapes.items()},
        optimizer=_optimizer(recipe, list(shapes.values())) if recipe.optimizer else None,
        scheduler=_scheduler(recipe) if recipe.scheduler else None,
        scaler=recipe.scaler_state(),
        rng=_rng(recipe),
    )


def _weight(recipe: Recipe, name: str, shape: tuple[int, ...]) -> Tensor:
    if is_decayed(shape):
        return Tensor.random(shape, seed=f"{recipe.seed} {name}", scale=0.1, dtype=recipe.dtype)
    return Tensor.full(shape, 1.0, recipe.dtype)


def _optimizer(recipe: Recipe, shapes: list[tuple[int, ...]]) -> dict[str, Any]:
    ordered = sorted(shapes, key=is_decayed, reverse=True)
    decayed = sum(map(is_decayed, ordered))
    return {
        "state": {i: _moments(recipe, shape) for i, shape in enumerate(ordered) if _has_state(recipe)},
        "param_groups": [
            _group(recipe, 0.1, range(decayed)),
            _group(recipe, 0.0, range(decayed, len(ordered))),
        ],
    }


def _has_state(recipe: Recipe) -> bool:
    return recipe.updates > 0 and (recipe.optimizer != "SGD" or bool(recipe.options.get("momentum")))


def _moments(recipe: Recipe, shape: tuple[int, ...]) -> dict[str, Tensor]:
    average = Tensor.random(shape, seed=f"{recipe.seed} {shape}", scale=1e-3, dtype=recipe.dtype)
    if recipe.optimizer == "SGD":
        return {"momentum_buffer": average}
    square = Tensor.of((v * v for v in average.values()), shape, recipe.dtype)
    return {"step": Tensor.full((), recipe.updates), "exp_avg": average, "exp_avg_sq": square}


def _group(recipe: Recipe, weight_decay: float, params: range) -> dict[str, Any]:
    options = _OPTIONS.get(recipe.optimizer or "")
    if options is None:
        raise ValueError(f"without torch the kit builds {', '.join(_OPTIONS)}, not {recipe.optimizer}")
    group = {"weight_decay": weight_decay, "lr": recipe.lr, **options, **recipe.options}
    if recipe.scheduler:
        group |= {"initial_lr": recipe.lr, "lr": recipe.lr * recipe.factor(recipe.updates)}
    return group | {"params": list(params)}


def _scheduler(recipe: Recipe) -> dict[str, Any]:
    own: dict[str, dict[str, Any]] = {
        "cosine": {"T_max": recipe.planned, "eta_min": 0.0},
        "lambda": {"lr_lambdas": [None, None]},
        "step": {"step_size": recipe.planned, "gamma": 0.1},
    }
    if recipe.scheduler not in own:
        raise ValueError(f"without torch the kit builds the schedulers {', '.join(own)}, not {recipe.scheduler}")
    return own[recipe.scheduler] | {
        "base_lrs": [recipe.lr] * 2,
        "last_epoch": recipe.updates,
        "_step_count": recipe.updates + 1,
        "_is_initial": False,
        "_get_lr_called_within_step": False,
        "_last_lr": [recipe.lr * recipe.factor(recipe.updates)] * 2,
    }


def _rng(recipe: Recipe) -> dict[str, Any] | None:
    if not recipe.rng:
        return None
    if recipe.rng == "numpy":
        raise ValueError("without torch the kit can't save NumPy's random state")
    return {"python": random.Random(recipe.seed).getstate(), "torch": _mersenne_twister(recipe.seed)}  # noqa: S311


def _mersenne_twister(seed: int) -> Tensor:
    """The 5,056 bytes of a freshly seeded `torch.Generator`: seed, position, 624 words, no normal kept back."""
    words = [seed]
    for i in range(1, 624):
        words.append((1812433253 * (words[-1] ^ (words[-1] >> 30)) + i) & 0xFFFFFFFF)
    data = struct.pack("<QiiQ624Q", seed, 1, 1, 0, *words)
    return Tensor("uint8", (5056,), data.ljust(5056, b"\0"))
