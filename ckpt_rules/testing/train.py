"""Really train the tiny model with torch: a few updates, then the counters are moved to where the test wants them."""

from __future__ import annotations

import random
from typing import Any

from ckpt_rules.testing.recipe import Parts, Recipe, is_decayed
from ckpt_rules.testing.tiny_llama import forward, parameter_shapes

REAL_UPDATES = 2


def train(recipe: Recipe) -> Parts:
    """Weights and states after training, as torch's own `state_dict` methods give them. No global RNG is touched."""
    import torch

    generator = torch.Generator().manual_seed(recipe.seed)
    parameters = _parameters(recipe, generator)
    optimizer = _optimizer(recipe, parameters)
    scheduler = _scheduler(recipe, optimizer) if optimizer and recipe.scheduler else None
    for _ in range(min(recipe.updates, REAL_UPDATES)):
        _update(recipe, parameters, optimizer, generator)
    if optimizer:
        _fast_forward(recipe, optimizer, scheduler)
    dtype = getattr(torch, recipe.dtype)
    return Parts(
        weights={name: p.detach().to(dtype) for name, p in parameters.items()},
        optimizer=_in_dtype(optimizer.state_dict(), dtype) if optimizer else None,
        scheduler=scheduler.state_dict() if scheduler else None,
        scaler=_scaler(recipe),
        rng=_rng(recipe, generator),
    )


def _in_dtype(state: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """An optimizer's `state_dict` as if the weights had been trained in the dtype that they are saved in."""
    moments = {
        key: {n: t.to(dtype) if hasattr(t, "to") and t.is_floating_point() and t.ndim else t for n, t in values.items()}
        for key, values in state["state"].items()
    }
    return {**state, "state": moments}


def _parameters(recipe: Recipe, generator: Any) -> dict[str, Any]:
    import torch

    return {
        name: torch.nn.Parameter(
            torch.randn(shape, generator=generator) * 0.1 if is_decayed(shape) else torch.ones(shape)
        )
        for name, shape in parameter_shapes(recipe.config).items()
    }


def _optimizer(recipe: Recipe, parameters: dict[str, Any]) -> Any:
    import torch

    if recipe.optimizer is None:
        return None
    groups = [
        {"params": [p for p in parameters.values() if is_decayed(p.shape)], "weight_decay": 0.1},
        {"params": [p for p in parameters.values() if not is_decayed(p.shape)], "weight_decay": 0.0},
    ]
    kind = getattr(torch.optim, recipe.optimizer, None)
    if kind is None:
        raise ValueError(f"torch.optim has no {recipe.optimizer!r}")
    return kind(groups, **{"lr": recipe.lr, **recipe.options})


def _scheduler(recipe: Recipe, optimizer: Any) -> Any:
    from torch.optim import lr_scheduler

    def factor(update: int) -> float:  # a plain function, which torch saves as None, as in most training scripts
        return recipe.factor(update)

    match recipe.scheduler:
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=recipe.planned)
        case "lambda":
            return lr_scheduler.LambdaLR(optimizer, factor)
        case "step":
            return lr_scheduler.StepLR(optimizer, step_size=recipe.planned)
        case "plateau":
            return lr_scheduler.ReduceLROnPlateau(optimizer)
    raise ValueError(f"there is no scheduler {recipe.scheduler!r}: choose cosine, lambda, step, plateau or None")


def _scaler(recipe: Recipe) -> dict[str, Any] | None:
    """The state of a real scaler, which has been told how far it got."""
    import torch

    if recipe.scaler is None:
        return None
    scaler = torch.amp.GradScaler("cpu", enabled=recipe.scaler)
    if recipe.scaler:
        scaler.load_state_dict(recipe.scaler_state())
    state: dict[str, Any] = scaler.state_dict()
    return state


def _update(recipe: Recipe, parameters: dict[str, Any], optimizer: Any, generator: Any) -> None:
    import torch

    tokens = torch.randint(recipe.config["vocab_size"], (2, 9), generator=generator)
    logits = forward(parameters, tokens[:, :-1], recipe.config)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    if optimizer:
        optimizer.step()
        optimizer.zero_grad()


def _fast_forward(recipe: Recipe, optimizer: Any, scheduler: Any) -> None:
    """Let optimizer and scheduler say that `recipe.updates` updates were made, without making them."""
    for state in optimizer.state.values():
        if "step" in state:
            state["step"] = state["step"] * 0 + recipe.updates
    if scheduler is None:
        return
    if recipe.scheduler == "plateau":
        for epoch in range(recipe.epochs):
            scheduler.step(1 / (1 + epoch))
        return
    scheduler.last_epoch = recipe.updates
    scheduler._step_count = recipe.updates + 1  # noqa: SLF001 - as many calls as torch would have counted
    scheduler._last_lr = [base * recipe.factor(recipe.updates) for base in scheduler.base_lrs]  # noqa: SLF001
    for group, lr in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = lr


def _rng(recipe: Recipe, generator: Any) -> dict[str, Any] | None:
    if not recipe.rng:
        return None
    state = {"python": random.Random(recipe.seed).getstate(), "torch": generator.get_state()}  # noqa: S311 - no secret
    if recipe.rng == "numpy":
        import numpy as np

        state["numpy"] = np.random.RandomState(recipe.seed).get_state()
    return state
