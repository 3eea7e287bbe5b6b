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
    conventions,
    flatten,
    is_count,
    weights_of_components,
)
from ckpt_rules_training.maybe import maybe, updates_of

_COUNTERS = ("optimization_step", "num_updates")  # of diffusers' EMAModel, and of torch_ema
# The options of scripts, under the keys at which they are saved, and those of them that switch an average on.
_SWITCHES = ("use_ema", "model_ema", "ema")
_OPTIONS = ("args", "config", "cfg", "hparams", "hyper_parameters", "train_args", "opt")
_WRAPPERS = (
    conventions.wrappers.DATA_PARALLEL, "model.", "shadow.", "ema_model.", conventions.wrappers.COMPILED, "shadow_params.",
)  # fmt: skip


class EmaMissing(Rule):
    """The moving average of the weights is missing, or does not cover them.

    ## What it checks
    If the saved options switch a moving average on (`use_ema`, `model_ema`): that the training state holds one, or a
    file or directory is named after it. If the average is stored by tensor name, or in a directory next to that of its
    model (`unet_ema/` beside `unet/`): that it covers every floating-point weight, unless it has as many tensors as the
    optimizer trains parameters. If it is a plain list of tensors: that it has one for each parameter of the optimizer.
    That its counter of updates is not zero.

    ## Why it matters
    The average starts again from the current weights. It needs about 1/(1-decay) updates to become useful; evaluations
    before that look like a bad model.

    ## How to repair
    Save the average's `state_dict()` in the checkpoint. Resume from a checkpoint that has it.
    """

    id = "ema/missing"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem for each moving average."""
        folders = list(_folders(checkpoint))
        if folders:
            for model, average in folders:
                yield from _folder_problems(checkpoint, model, average)
            return
        state = checkpoint.state
        listed = next((k for k in conventions.state_dict_keys.EMA if _shadows(state.values.get(k)) is not None), None)
        if listed is not None:
            yield from _list_problems(checkpoint, state.path, listed)
            return
        key = next((k for k in conventions.state_dict_keys.EMA if _tensors(state.values.get(k))), None)
        if key is not None:
            yield from _gaps(checkpoint, state.path, key, _tensors(state.values[key]))
            return
        switch = _switch(state.values)
        if switch is None:
            raise FactUnavailable("nothing shows that training keeps a moving average")
        if not any("ema" in e.name.lower().replace(".", "_").split("_") for e in checkpoint.listing):
            yield Problem(
                message=f"'{switch}' is on in the saved options, but the checkpoint has no moving average of the "
                "weights",
                place=Place(path=state.path, key=switch),
                help="save the average's state_dict in the checkpoint, or resume from a checkpoint that has it",
                data={"switch": switch},
            )


def _gaps(checkpoint: Checkpoint, path: str, key: str, shadows: Mapping[str, TensorInfo]) -> Iterator[Problem]:
    weights = {n: t for n, t in checkpoint.weights.tensors.items() if t.dtype in FLOAT_DTYPES}
    known, names = {_bare(n) for n in shadows}, {_bare(n) for n in weights}
    absent = sorted(names - known)
    # Averages that go by number, or by names of their own, are not compared; nor are weights that nobody trains.
    trained = maybe(lambda: sum(len(g.params) for g in checkpoint.optimizer.groups))
    enough = trained is not None and 0 < trained <= len(known & names)
    if absent and not enough and len(known & names) * 2 > len(names):
        yield Problem(
            message=f"the moving average under '{key}' leaves out {len(absent):,} of {len(names):,} weights, "
            f"{absent[0]} first",
            place=Place(path=path, key=key),
            help="resume from a checkpoint whose moving average is complete",
            data={"missing": absent[:100], "weights": len(names)},
        )


def _folders(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Directories of a model and of its average, as diffusers' EMAModel saves it."""
    weights = {e.parent for e in checkpoint.listing.files() if e.path.count("/") == 1 and e.suffix == ".safetensors"}
    for folder in sorted(weights):
        if f"{folder}_ema" in weights:
            yield folder, f"{folder}_ema"


def _folder_problems(checkpoint: Checkpoint, model: str, average: str) -> Iterator[Problem]:
    names, known = (set(weights_of_components(checkpoint, [f]).complete().tensors) for f in (model, average))
    absent = sorted(n.removeprefix(f"{model}.") for n in names - known)
    if absent:
        yield Problem(
            message=f"the moving average in {average}/ leaves out {len(absent):,} of {len(names):,} weights, "
            f"{absent[0]} first",
            place=Place(path=average),
            help="resume from a checkpoint whose moving average is complete",
            data={"missing": absent[:100], "weights": len(names)},
        )
    path = f"{average}/config.json"
    if checkpoint.listing.has_file(path):
        yield from _counter_problem(checkpoint, path, "", checkpoint.files.contents(path))


def _shadows(value: object) -> int | None:
    """How many tensors an average holds that goes by their order, such as EMAModel's `shadow_params`."""
    shadows = value.get("shadow_params") if isinstance(value, Mapping) else None
    is_list = isinstance(shadows, list | tuple) and shadows and all(isinstance(s, TensorInfo) for s in shadows)
    return len(shadows) if is_list else None  # type: ignore[arg-type]


def _list_problems(checkpoint: Checkpoint, path: str, key: str) -> Iterator[Problem]:
    value = checkpoint.state.values[key]
    yield from _counter_problem(checkpoint, path, key, value)
    held, trained = _shadows(value) or 0, sum(len(g.params) for g in checkpoint.optimizer.groups)
    # An average of one of two models that one optimizer trains holds fewer by design.
    if trained / 2 < held < trained == len(checkpoint.weights.complete().tensors):
        yield Problem(
            message=f"the moving average under '{key}' holds {held:,} tensors, but the optimizer trains {trained:,} "
            "parameters",
            place=Place(path=path, key=key),
            help="resume from a checkpoint whose moving average is complete",
            data={"shadows": held, "parameters": trained},
        )


def _counter_problem(checkpoint: Checkpoint, path: str, key: str, values: object) -> Iterator[Problem]:
    counters = values if isinstance(values, Mapping) else {}
    name = next((c for c in _COUNTERS if is_count(counters.get(c)) and counters[c] == 0), None)
    done = updates_of(checkpoint)
    if name is not None and done:
        yield Problem(
            message=f"the moving average has counted 0 updates, but the optimizer has made {done:,}: its decay "
            "starts again from 0, so the first updates overwrite it",
            place=Place(path=path, key=f"{key}.{name}" if key else name),
            help=f"set {name} to the number of updates that were averaged, or deliberately start a new average",
            data={"counter": name, "updates": done},
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
