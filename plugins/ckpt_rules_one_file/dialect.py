"""What the trainers that write one dictionary have in common; each is a subclass that fills in the table and its arithmetic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from ckpt_rules import (
    Checkpoint,
    Contradiction,
    Entry,
    FactUnavailable,
    Field,
    Layout,
    Match,
    ModelConfig,
    Opaque,
    Pointer,
    Progress,
    Recorded,
    Requirement,
    Sign,
    Signature,
    Tells,
    TrainingState,
    Weights,
    counter_faults,
    is_count,
    weights_in,
)

_SUFFIXES = (".pt", ".pth", ".pth.tar")
_BEST = re.compile(r"(?:checkpoint_best|model_best|best)\..+")
_NUMBER = re.compile(r"\d+")
_INDEX = re.compile(r"-?\d{1,6}")

Values = Mapping[object, object]


class Dialect(Layout):
    """One trainer's dictionary.

    signs:    keys at the top, all of which are there
    names:    what the trainer calls its files
    expected: what belongs in the dictionary
    weight_keys: where the weights are, the first that holds any
    counters: the common name of each counter, and the keys that lead to it, joined by dots
    named:    names that say a counter, their number in a group, and the key that must hold just that
    newest:   the file that a resume takes whatever lies beside it, or None
    pointer:  the file that names the newest save, or None; and what the trainer does where it names nothing
    without_pointer: what the trainer does where that file is not there, beside names that only a run has
    of_a_run: those names
    """

    one_file = True
    signs: ClassVar[tuple[str, ...]]
    names: ClassVar[re.Pattern[str]]
    expected: ClassVar[tuple[Field, ...]]
    weight_keys: ClassVar[tuple[str, ...]]
    counters: ClassVar[tuple[tuple[str, str], ...]]
    named: ClassVar[tuple[tuple[re.Pattern[str], str], ...]] = ()
    newest: ClassVar[str | None] = None
    pointer: ClassVar[str | None] = None
    without_target: ClassVar[str] = ""
    without_pointer: ClassVar[str] = ""
    of_a_run: ClassVar[re.Pattern[str]] = re.compile(r"(?!)")

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """By the keys of its dictionary; a file that can't be read, by its name."""
        by_keys = Signature(must=(Sign(self._own_keys, most=len(self.signs)),))
        by_name = Signature(must=(Sign(self._unreadable, Tells.NAME),))
        return by_keys.match(checkpoint) or by_name.match(checkpoint)

    def _own_keys(self, checkpoint: Checkpoint) -> list[str]:
        file = self.file(checkpoint)
        values = checkpoint.contents(file.path) if file else None
        if file is None or not isinstance(values, Mapping) or not self.fits(file, values):
            return []
        return [f"'{key}' in {file.path}" for key in self.signs if key in values]

    def _unreadable(self, checkpoint: Checkpoint) -> list[str]:
        """A file by its name, of which nothing more is known."""
        file = self.file(checkpoint)
        if file is None or not self.names.fullmatch(file.name):
            return []
        try:
            checkpoint.contents(file.path)
        except FactUnavailable:
            return [file.path]
        return []

    def fits(self, file: Entry, values: Values) -> bool:
        """Whether a dictionary is this trainer's."""
        return all(key in values for key in self.signs)

    def file(self, checkpoint: Checkpoint) -> Entry | None:
        """The only torch file at the top, copies of the best one left out; or the one that a resume takes anyway."""
        listing = checkpoint.listing
        found = [e for e in checkpoint.files_in("torch") if "/" not in e.path and e.name.endswith(_SUFFIXES)]
        usual = next((e for e in found if e.name == self.newest), None)
        if any(e.suffix == ".safetensors" for e in listing if "/" not in e.path):
            return None
        others = [e for e in found if not _BEST.fullmatch(e.name)] or found
        return usual or (others[0] if len(others) == 1 else None)

    def path(self, checkpoint: Checkpoint) -> str:
        """The file's path; FactUnavailable where there is none."""
        file = self.file(checkpoint)
        if file is None:
            raise FactUnavailable(f"there is no file of the layout {self.name}")
        return file.path

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """The file itself."""
        return (Requirement((self.path(checkpoint),), "nothing else holds the training state"),)

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The dictionary."""
        path = self.path(checkpoint)
        values = checkpoint.contents(path)
        if not isinstance(values, Mapping):
            raise FactUnavailable(f"{path} holds no dictionary", path=path, blocked=True)
        scaler = self.scaled(values)
        if scaler is None:
            return TrainingState(path, values, self.expected)
        return TrainingState(path, values, (*(f for f in self.expected if f.name != scaler.name), scaler))

    def scaled(self, values: Values) -> Field | None:
        """What is expected of the gradient scaler where the saved options call for one; None where `expected` says it."""
        return None

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Under the trainer's key."""
        return weights_in(checkpoint, self.path(checkpoint), self.weight_keys)

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """None of a known architecture."""
        raise FactUnavailable(f"the layout {self.name} holds no configuration of a known architecture")

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The counters as they are written."""
        state = checkpoint.state
        found = ((name, inside(state.values, key), key) for name, key in self.counters)
        return tuple(Recorded(name, value, state.path, key) for name, value, key in found if value is not None)

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """FactUnavailable where a counter makes no sense (a rule reports it) or none is recorded."""
        recorded = checkpoint.recorded
        faults = counter_faults(recorded, updates_of(checkpoint))
        if faults:
            counter, _ = faults[0]
            reason = f"{counter.key} in {counter.path} makes no sense"
            raise FactUnavailable(reason, path=counter.path, blocked=True)
        if not recorded:
            raise FactUnavailable("no progress is recorded")
        return self.standing(checkpoint, {r.name: int(r.value) for r in recorded if is_count(r.value)})

    def standing(self, checkpoint: Checkpoint, counts: Mapping[str, int]) -> Progress:
        """Where training stands, by valid counters, and what this trainer does from there."""
        raise NotImplementedError

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """A file under the name of another save."""
        state = checkpoint.state
        found = ((pattern.fullmatch(state.path), key) for pattern, key in self.named)
        values = ((int(match[1]), key, inside(state.values, key)) for match, key in found if match)
        return tuple(
            Contradiction(state.path, key, f"{key} is {int(value):,}, and the file's name says {number:,}")
            for number, key, value in values
            if is_count(value) and value != number
        )

    def pointers(self, checkpoint: Checkpoint) -> tuple[Pointer, ...]:
        """The file that names the newest save, in the directory; its last part counts, for whole runs are moved."""
        if self.pointer is None:
            return ()
        path = f"../{self.pointer}" if checkpoint.is_one_file else self.pointer
        target, fault = checkpoint.note(path), checkpoint.note_fault(path)
        if fault:
            return (Pointer(path, "", exists=False, why=self.without_target, fault=fault),)
        if target is None:
            missed = self.names.fullmatch(self.path(checkpoint)) and self._is_in_a_run(checkpoint)
            return (Pointer(path, "", exists=False, why=self.without_pointer, needed="warning"),) if missed else ()
        named, own = target.rpartition("/")[2], self.path(checkpoint)
        there = checkpoint.beside(named) if checkpoint.is_one_file else checkpoint.listing.get(named)
        newer = own if _number(own) > _number(named) else None
        return (Pointer(path, target, bool(named and there), self.without_target, newer=newer),)

    def _is_in_a_run(self, checkpoint: Checkpoint) -> bool:
        """Whether the file lies where the trainer wrote it, and is not a copy alone in a directory."""
        tops = (e.path for e in checkpoint.listing if "/" not in e.path)
        beside = checkpoint.listing.siblings if checkpoint.is_one_file else tops
        own = self.path(checkpoint)
        return any(name != own and self.of_a_run.fullmatch(name) for name in beside)


def _number(name: str) -> int:
    """The number in a save's name; one without, `model_final`, is the last."""
    found = _NUMBER.findall(name)
    return int(found[-1][:18]) if found else 2**63


def inside(values: object, key: str) -> object:
    """What lies under keys joined by dots: in dictionaries, in lists by position, in the attributes of objects."""
    for part in key.split("."):
        if isinstance(values, list | tuple):
            index = int(part) if _INDEX.fullmatch(part) else len(values)
            values = values[index] if -len(values) <= index < len(values) else None
        else:
            values = options(values).get(part)
    return values


def options(value: object) -> Values:
    """A dictionary: itself, or the attributes of an object; else nothing."""
    if isinstance(value, Opaque):
        value = value.state
    return value if isinstance(value, Mapping) else {}


def updates_of(checkpoint: Checkpoint) -> int | None:
    """Updates that the optimizer has counted."""
    try:
        return checkpoint.optimizer.updates
    except FactUnavailable:
        return None
