"""optimizer/missing, scheduler/missing, scaler/missing and rng/missing: parts of the state that aren't there."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, SchedulerState, Severity
from ckpt_rules_training.maybe import maybe
from ckpt_rules_training.soundness import is_sound


class OptimizerMissing(Rule):
    """The training checkpoint has no optimizer state.

    ## What it checks
    That there is an optimizer's `state_dict`, in the training state or in a separate file, and that it has the right
    form: a dictionary with `param_groups` and `state`.

    ## Why it matters
    The optimizer starts again with empty moments and, in Adam's case, with the large first steps of bias correction.
    The loss jumps and often settles on a worse curve. Loaders do not complain about a key that they do not look for.

    ## How to repair
    Resume from a checkpoint that has it. If there is none, deliberately restart with a new learning-rate warm-up. In
    future, save `optimizer.state_dict()` together with the model's.
    """

    id = "optimizer/missing"
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        absent = _absence(checkpoint, "optimizer")
        if absent:
            yield _problem(
                checkpoint, "optimizer", absent, "resume from a checkpoint that holds the optimizer's state_dict"
            )


class SchedulerMissing(Rule):
    """The checkpoint has no learning-rate scheduler state.

    ## What it checks
    That there is a scheduler's `state_dict` where the layout always has one, or where the optimizer's groups show that
    a scheduler was attached (`initial_lr`). An explicit None says that training uses no scheduler. If the layout
    expects one and nothing shows that it ever existed, this is information only. Anything else in its place is an
    error, and so is an empty list of schedulers or an empty `state_dict` although schedulers were stepped: loaders then
    restore nothing.

    ## Why it matters
    A new scheduler starts from its first step: the warm-up again, or a learning rate a hundred times too high for where
    training is.

    ## How to repair
    Rebuild the scheduler and step it forward to the recorded update, or pass `last_epoch`; then save
    `scheduler.state_dict()`. If training uses none, save `None` under the key to record this.
    """

    id = "scheduler/missing"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem, or one for each scheduler without content."""
        absent = _absence(checkpoint, "scheduler", always=_is_expected(checkpoint))
        if absent:
            severity = None if _was_scheduled(checkpoint) else Severity.INFO
            help_ = "save scheduler.state_dict(); if training uses no scheduler, save None under its key"
            yield _problem(checkpoint, "scheduler", absent, help_, Severity.ERROR if absent.blocked else severity)
            return
        if _was_scheduled(checkpoint):
            yield from map(_hollow, (s for s in maybe(lambda: checkpoint.schedulers) or () if not s.values))


class ScalerMissing(Rule):
    """The checkpoint has no gradient scaler state although mixed precision needs one.

    ## What it checks
    That there is a gradient scaler's `state_dict` if the saved options select fp16. If they do not say, and the layout
    always has one (`{}` for a disabled scaler), this is information only. Nothing is reported if options or weights are
    bfloat16, which needs no scaler.

    ## Why it matters
    A legacy checkpoint without AMP state resumes with the initial loss scale of 65,536: the first updates overflow and
    are skipped until the scale has come down, and the run is no longer the one that was interrupted.

    ## How to repair
    Resume anyway and expect a few skipped updates. In future, save `scaler.state_dict()` in the checkpoint.
    """

    id = "scaler/missing"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        absent = _absence(checkpoint, "scaler")
        if absent and not _in_bfloat16(checkpoint):
            field = checkpoint.state.field("scaler")
            severity = Severity.INFO if field and field.severity is Severity.INFO and not absent.blocked else None
            help_ = "save scaler.state_dict() in the checkpoint ({} if AMP is off)"
            yield _problem(checkpoint, "scaler", absent, help_, severity)


class RngMissing(Rule):
    """The checkpoint has no random-number generator state.

    ## What it checks
    Whether the state of any generator (python, numpy, torch, cuda) was saved. Information only, but a warning for
    layouts whose trainer always writes it.

    ## Why it matters
    Training resumes, but with different shuffling, dropout and augmentation than an uninterrupted run would have had:
    the two can't be compared bit by bit.

    ## How to repair
    Save `random.getstate()`, `torch.get_rng_state()` and `torch.cuda.get_rng_state_all()` in the checkpoint if resumed
    runs must be reproducible.
    """

    id = "rng/missing"
    severity = Severity.INFO
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        field = checkpoint.state.field("rng")
        if field is None:
            raise FactUnavailable(f"the layout {checkpoint.layout.name} never contains random-number state")
        severity = Severity.WARNING if field.severity is Severity.WARNING else None
        absent = _absence(checkpoint, "rng", always=True)
        if absent:
            yield _problem(
                checkpoint,
                "rng",
                absent,
                "save the states of the random-number generators to make resumed runs reproducible",
                severity,
            )


def _absence(checkpoint: Checkpoint, name: str, *, always: bool = False) -> FactUnavailable | None:
    """Why a part of the state is not available; None where it is there, or where nobody misses it.

    always: also where the layout does not need it
    """
    state = checkpoint.state
    try:
        getattr(checkpoint, name)
    except FactUnavailable as absent:
        value, field = state.get(name), state.field(name)
        if absent.blocked and (state.misspelt(name) or not is_sound(checkpoint, absent.path or state.path)):
            raise  # other rules report the misspelt key and the damaged file
        if absent.blocked:
            return absent
        if value is not None:
            raise  # it is there, in a form that can't be looked into
        if name != "optimizer" and state.key_of(name) is not None:
            return None  # None was saved on purpose
        needed = field is not None and field.severity is not None
        return absent if needed or always else None
    return None


def _problem(
    checkpoint: Checkpoint, name: str, absent: FactUnavailable, help_: str, severity: Severity | None = None
) -> Problem:
    state = checkpoint.state
    field = state.field(name)
    own = field.path if field else None
    path = absent.path if absent.blocked and absent.path else own or state.path
    key = (state.key_of(name) or (field.keys[0] if field else None)) if path == state.path else None
    # What lies in its place has a sentence of its own; the layout's is about a field that is not there.
    why = f": {field.why}" if field and field.why and not absent.blocked else ""
    return Problem(
        message=f"{absent.reason}{why}",
        place=Place(path=path, key=key),
        help=help_,
        severity=severity,
        data={"field": name, "looked_for": list(field.keys) if field else []},
    )


def _hollow(scheduler: SchedulerState) -> Problem:
    where = f"'{scheduler.key}'" if scheduler.key else scheduler.path
    return Problem(
        message=f"{where} is an empty dictionary, not the state_dict of a scheduler: the schedule starts again from "
        "its first step",
        place=Place(path=scheduler.path, key=scheduler.key or None),
        severity=Severity.ERROR,
        help="take it from another copy of the save, or step a new scheduler forward to the current training step",
        data={"field": "scheduler"},
    )


def _is_expected(checkpoint: Checkpoint) -> bool:
    """Whether a scheduler was attached in a layout that keeps its state where there is one."""
    return checkpoint.state.field("scheduler") is not None and _was_scheduled(checkpoint)


def _was_scheduled(checkpoint: Checkpoint) -> bool:
    """Whether a scheduler was ever attached to the optimizer: torch then notes each group's first learning rate."""
    optimizers = maybe(lambda: checkpoint.optimizers) or ()
    return any("initial_lr" in g.options for o in optimizers for g in o.groups)


def _in_bfloat16(checkpoint: Checkpoint) -> bool:
    weights = maybe(lambda: checkpoint.weights.tensors)
    floats = [t.dtype for t in (weights or {}).values() if "float" in t.dtype]
    return bool(floats) and all(d == "bfloat16" for d in floats)
