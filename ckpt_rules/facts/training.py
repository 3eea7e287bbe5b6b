"""Training state: optimizer, scheduler, loss scaler, RNG, and the counters that say how far training got."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

from ckpt_rules.facts.spelling import misspelling_of
from ckpt_rules.facts.tensors import TensorInfo
from ckpt_rules.finding import Severity

_DICTIONARIES = frozenset({"optimizer", "scheduler", "scaler", "rng"})

TORCH_STATE_BYTES = (5056, 5048)
"""How long the state of torch's generator on the CPU is: today, and before torch 1.5."""


@dataclass(frozen=True, slots=True)
class Field:
    """One entry that a layout expects in its training state.

    name:    the canonical name that rules use: `optimizer`, `scheduler`, `scaler`, `epoch`, `step`, `total_batches`, …
    keys:    what trainers call it, most usual first
    severity: of its absence: an error or a warning where resuming goes wrong without it, information where it may, None
              where it does not
    why:     what happens without it, one sentence
    path:    the file of its own in which it belongs, where it is not an entry of the state's file
    inside:  keys that lead from its dictionary to what a resume needs in it; where that is missing or empty, so is the field
    """

    name: str
    keys: tuple[str, ...]
    severity: Severity | None = None
    why: str = ""
    path: str | None = None
    inside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The dictionary that training resumes from.

    path:   the file that holds it
    values: the dictionary itself (plain values, `TensorInfo`, `Opaque`)
    fields: what its layout expects in it
    """

    path: str
    values: Mapping[object, object]
    fields: tuple[Field, ...] = ()

    def key_of(self, name: str) -> str | None:
        """The key under which a field is stored here, or None."""
        keys = next((f.keys for f in self.fields if f.name == name), ())
        return next((k for k in keys if k in self.values), None)

    def get(self, name: str) -> object:
        """The value of a field, or None."""
        key = self.key_of(name)
        return None if key is None else self.values[key]

    def field(self, name: str) -> Field | None:
        """What the layout says about a field, or None where it does not know it."""
        return next((f for f in self.fields if f.name == name), None)

    def misspelt(self, name: str) -> str | None:
        """The key that was probably meant to be this field's, where none of the field's own keys is here."""
        field_ = self.field(name)
        if field_ is None or self.key_of(name) is not None:
            return None
        known = {k for f in self.fields for k in f.keys}
        strangers = [k for k, v in self.values.items() if isinstance(k, str) and k not in known and _fits(name, v)]
        return next((k for k in strangers if misspelling_of(k, field_.keys)), None)


def _fits(name: str, value: object) -> bool:
    """Whether a value could be that of the field: a dictionary, or a number."""
    if name in _DICTIONARIES:
        return isinstance(value, Mapping)
    return isinstance(plain(value), int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class ParamGroup:
    """One parameter group of an optimizer.

    params:  ids of its parameters, positions (torch) or names (FSDP), in order
    options: hyper-parameters as stored: lr, betas, eps, weight_decay, initial_lr, …
    names:   parameter names where the optimizer kept them (`param_names`), else ()
    """

    index: int
    params: tuple[object, ...]
    options: Mapping[str, object]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ParamState:
    """What an optimizer keeps for one parameter.

    step:    optimizer updates made to it, as stored (a number of any kind), or None where the optimizer counts none
    tensors: moments and the like by name, the step left out
    odd:     what lies there in a few words, where it is not a dictionary, else None
    hidden:  names of what can't be looked into, as moments of 4 or 8 bits that are tensors of a class of their own
    """

    step: object
    tensors: Mapping[str, TensorInfo]
    odd: str | None = None
    hidden: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """An optimizer's `state_dict`.

    path, key: where it is stored
    kind:      what its state looks like: `Adam`, `AMSGrad`, `SGD`, `SGD with momentum`, `Adafactor`, …, or `unknown`
    states:    by parameter id
    grouped:   False where the save keeps options by parameter: the groups are then of parameters with equal options
    """

    path: str
    key: str
    kind: str
    groups: tuple[ParamGroup, ...]
    states: Mapping[object, ParamState]
    grouped: bool = True
    _steps: Counter[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_steps", Counter(int(s.step) for s in self.states.values() if is_count(s.step)))

    @property
    def steps(self) -> Counter[int]:
        """How many parameters have had how many updates; empty where the optimizer keeps no counters."""
        return self._steps

    @property
    def updates(self) -> int | None:
        """Optimizer updates done: the most that any parameter has had; None where the optimizer keeps no counters."""
        steps = self.steps
        return max(steps) if steps else None

    @property
    def lrs(self) -> tuple[object, ...]:
        """The learning rate of each group, as stored (0-dim tensors as their value)."""
        return tuple(plain(g.options.get("lr")) for g in self.groups)


@dataclass(frozen=True, slots=True)
class SchedulerState:
    """A learning-rate scheduler's `state_dict`.

    kind:       what its fields look like: `LambdaLR`, `CosineAnnealingLR`, `ReduceLROnPlateau`, …, or `unknown`
    last_epoch: scheduler steps done (steps, not epochs, where it is stepped every update), as stored
    step_count: calls of `step`, one more than `last_epoch` in torch, as stored
    last_lr:    the rate it set last, one per group, as stored
    base_lrs:   the rates it started from, one per group, as stored
    parts:      the schedulers of a sequence (`SequentialLR`) or a chain (`ChainedScheduler`), each with its own key
    milestones: the steps at which a sequence continues to its next part, as stored
    """

    path: str
    key: str
    kind: str
    values: Mapping[str, object]
    last_epoch: object = None
    step_count: object = None
    last_lr: tuple[object, ...] = ()
    base_lrs: tuple[object, ...] = ()
    parts: tuple[SchedulerState, ...] = ()
    milestones: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class ScalerState:
    """A gradient scaler's `state_dict`. `enabled` is False where it is the `{}` of a disabled scaler.

    scale:          the loss scale, as stored
    growth_tracker: updates since the scale last changed, as stored
    """

    path: str
    key: str
    enabled: bool
    scale: object = None
    growth_tracker: object = None


@dataclass(frozen=True, slots=True)
class RngFault:
    """One thing that is wrong with random-number state.

    key:      where it lies in the file; '' is the whole of it
    sentence: what is wrong, a predicate without its subject
    stops:    whether setting the state raises; else nothing is restored
    """

    key: str
    sentence: str
    stops: bool


@dataclass(frozen=True, slots=True)
class RngState:
    """Random-number state.

    sources: a subset of python, numpy, torch, cuda
    faults:  what no generator takes
    logged:  whether the trainer only logs what it can't restore, and continues
    """

    path: str
    key: str
    sources: frozenset[str]
    faults: tuple[RngFault, ...] = ()
    logged: bool = False


@dataclass(frozen=True, slots=True)
class Recorded:
    """One counter as it is written in the checkpoint, valid or not.

    name: `epoch`, `step`, `total_batches`, `global_step`, `gradient_accumulation`, `total_epochs`, `total_steps`
    """

    name: str
    value: object
    path: str
    key: str


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two counters of one checkpoint that can't both be right, in the arithmetic of the trainer that wrote them.

    path, key: the counter that is probably wrong
    sentence:  what it says and what the other says, lower case, without a full stop
    severity:  a warning where data of another length in each epoch would explain it, information where no resume reads the
               counter
    """

    path: str
    key: str
    sentence: str
    severity: Severity = Severity.ERROR


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """Where training starts again.

    sentence:      the same in words, without a full stop; made from the numbers where it is not given
    epoch:         the 1-based epoch that starts or continues; None where the checkpoint counts no epochs
    skipped:       batches of that epoch that are passed over, counted from its first
    trained:       batches of that epoch that remain, or None where its length is not recorded
    from_update:   optimizer updates already made, or None

    What follows is for the sentence alone:

    after_epoch:   whether the epoch before was trained to its end
    unit:          what `from_update` counts in the trainer's words: `update`, `iteration`; for a `step` nothing is said of the next
    planned:       of how many
    also:          what follows the usual words, from its comma or semicolon on

    >>> ResumePlan(epoch=3, after_epoch=True).sentence
    'epoch 2 is complete; training starts epoch 3 at its first batch'
    >>> ResumePlan(from_update=20, unit="update", planned=40).sentence
    'training continues at update 21 of 40'
    """

    sentence: str = ""
    epoch: int | None = None
    skipped: int = 0
    trained: int | None = None
    from_update: int | None = None
    after_epoch: bool = field(default=False, repr=False, compare=False)
    unit: str = field(default="", repr=False, compare=False)
    planned: int | None = field(default=None, repr=False, compare=False)
    also: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.sentence:
            object.__setattr__(self, "sentence", f"{self._by_count() or self._by_epoch()}{self.also}")

    def _by_count(self) -> str:
        if not self.unit or self.from_update is None:
            return ""
        if self.unit == "step":
            return f"training continues after step {self.from_update:,}"
        of = f" of {self.planned:,}" if self.planned else ""
        epoch = "" if self.epoch is None or self.skipped else f", with epoch {self.epoch:,} at its first batch"
        return f"training continues at {self.unit} {self.from_update + 1:,}{of}{epoch}"

    def _by_epoch(self) -> str:
        if self.epoch is None:
            return "nothing says where training starts"
        before = f"epoch {self.epoch - 1:,} is complete; " if self.after_epoch else ""
        return f"{before}training starts epoch {self.epoch:,} at its first batch"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training got, in one convention for all layouts.

    epoch:         epochs, 1-based: the one under way, or the last one where `complete`
    step:          batches done in the epoch under way; 0 where it is complete
    total_batches: batches (forward passes) per epoch
    global_step:   the trainer's own global counter, as recorded
    accumulation:  batches per optimizer update, 1 unless recorded or inferred
    batches_done:  forward passes since the start of training, or None where it can't be told
    expected_updates: optimizer updates that the counters imply, or None
    planned_epochs, planned_updates: the planned end, where recorded
    scheduler_steps: steps of all schedulers together, where the trainer counts them
    exact:         whether the trainer counts each update itself, so that the optimizer must agree to the update
    notes:         how the counters were read where they could be read in several ways, for `inspect`
    """

    epoch: int | None = None
    step: int | None = None
    total_batches: int | None = None
    global_step: int | None = None
    accumulation: int = 1
    batches_done: int | None = None
    expected_updates: int | None = None
    planned_epochs: int | None = None
    planned_updates: int | None = None
    scheduler_steps: int | None = None
    complete: bool = False
    exact: bool = False
    notes: tuple[str, ...] = ()
    plan: ResumePlan | None = None

    @property
    def fraction(self) -> float | None:
        """How much of the current epoch is done, 0 to 1."""
        if self.complete:
            return 1.0
        return self.step / self.total_batches if self.step is not None and self.total_batches else None

    @property
    def finished(self) -> bool:
        """Whether the planned end is recorded and reached, so that nothing is left to train."""
        updates = self.expected_updates if self.global_step is None else self.global_step
        if self.planned_updates and updates is not None and updates >= self.planned_updates:
            return True
        whole = self.complete or self.total_batches is None
        return bool(self.planned_epochs and self.epoch is not None and whole and self.epoch >= self.planned_epochs)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The model's configuration (`config.json`, or the dictionary inside a one-file checkpoint)."""

    path: str
    key: str
    values: Mapping[str, object] = field(default_factory=dict)


def plain(value: object) -> object:
    """A tensor without dimensions as its number, anything else as it is."""
    return value.value if isinstance(value, TensorInfo) else value


def is_count(value: object) -> TypeGuard[int | float]:
    """Whether a stored value can be a counter: a whole, finite, non-negative number that fits in 63 bits, no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63 and value == int(value)
