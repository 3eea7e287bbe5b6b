"""ema/missing: the moving average of the weights, where one is kept or was promised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpt_rules import (
    FLOAT_DTYPES,
    Checkpoint,
    FactUnavailable,
    Opaque,
    Place,
    Problem,
    Rule,
    Severity,
    TensorInfo,
    flatten,
)

_KEYS = ("ema", "ema_state_dict", "ema_model", "model_ema", "state_dict_ema", "ema_params", "shadow_params")
_SWITCHES = ("use_ema", "model_ema", "ema")
_OPTIONS = ("args", "config", "cfg", "hparams", "hyper_parameters", "train_args", "opt")
_WRAPPERS = ("module.", "model.", "shadow.", "ema_model.", "_orig_mod.", "shadow_params.")


class EmaMissing(Rule):
    """The moving average of the weights is missing, or does not cover them.

    ## What it checks
    Where the options that were saved switch a moving average on (`use_ema`, `model_ema`): that the training state holds one, or
    a file or directory is named for it. Where it holds one by name: that no weight of floating point is left out of it.

    ## Why it matters
    The average starts again from the current weights. It takes as many updates as its decay remembers until it is worth
    anything, and whoever evaluates before that blames the model.

    ## How to repair
    Save the average's `state_dict()` with the rest. Resume from a checkpoint that has it.
    """

    id = "ema/missing"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        state = checkpoint.state
        key = next((k for k in _KEYS if _tensors(state.values.get(k))), None)
        if key is not None:
            yield from _gaps(checkpoint, state.path, key, _tensors(state.values[key]))
            return
        switch = _switch(state.values)
        if switch is None:
            raise FactUnavailable("nothing says that a moving average is kept")
        if not any("ema" in e.name.lower().replace(".", "_").split("_") for e in checkpoint.listing):
            yield Problem(
                message=f"'{switch}' is on in the saved options, and there is no moving average of the weights",
                place=Place(path=state.path, key=switch),
                help="save the average's state_dict with the rest, or resume from a checkpoint that has it",
                data={"switch": switch},
            )


def _gaps(checkpoint: Checkpoint, path: str, key: str, shadows: Mapping[str, TensorInfo]) -> Iterator[Problem]:
    weights = {n: t for n, t in checkpoint.weights.tensors.items() if t.dtype in FLOAT_DTYPES}
    known, names = {_bare(n) for n in shadows}, {_bare(n) for n in weights}
    absent = sorted(names - known)
    # Averages that go by number, or by names of their own, are not compared.
    if absent and len(known & names) * 2 > len(names):
        yield Problem(
            message=f"the moving average under '{key}' leaves out {len(absent):,} of {len(names):,} weights, {absent[0]} first",
            place=Place(path=path, key=key),
            help="resume from a checkpoint whose average is whole",
            data={"missing": absent[:100], "weights": len(names)},
        )


def _bare(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _tensors(value: object) -> Mapping[str, TensorInfo]:
    return flatten(value) if isinstance(value, Mapping) else {}


def _switch(values: Mapping[object, object]) -> str | None:
    """The option that switches an average on, with the key that holds the options."""
    for name in _OPTIONS:
        options = values.get(name)
        options = options.state if isinstance(options, Opaque) else options
        if isinstance(options, Mapping):
            found = next((s for s in _SWITCHES if options.get(s) is True), None)
            if found:
                return f"{name}.{found}"
    return None
