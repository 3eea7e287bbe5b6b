"""The layout of trainers that write one dictionary: a table of its keys, and the arithmetic of its counters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ckpt_rules.dictionaries import Values, dictionary, inside, sound_counts, updates_of
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.pointers import Pointer
from ckpt_rules.facts.training import Contradiction, Recorded, TrainingState, is_count
from ckpt_rules.finding import Severity
from ckpt_rules.layout import Layout
from ckpt_rules.signature import Sign, Signature, Tells
from ckpt_rules.traits import Match, Requirement
from ckpt_rules.weights import weights_in

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.facts.files import Entry
    from ckpt_rules.facts.tensors import Weights
    from ckpt_rules.facts.training import Field, ModelConfig, Progress

Counter = Literal[
    "epoch", "step", "total_batches", "global_step", "gradient_accumulation", "total_epochs", "total_steps"
]
"""Common names of counters; `ckpt_rules.facts.training.Progress` says what each counts."""

_SUFFIXES = (".pt", ".pth", ".pth.tar")
_BEST = re.compile(r"(?:checkpoint_best|model_best|best)\..+")
_NUMBER = re.compile(r"\d+")
_NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True)
class Newest:
    """A file that names the newest save of a run.

    path:            beside the save
    without_target:  what the trainer does where it names a file that is not there
    without_pointer: what the trainer does without it, beside names that only a run has
    of_a_run:        those names
    """

    path: str
    without_target: str
    without_pointer: str = ""
    of_a_run: re.Pattern[str] = _NOTHING


class DictCheckpoint(Layout):
    """One trainer's dictionary, in one torch file. A subclass fills in the table, and says in `standing` what a resume does.

    keys:        keys at the top by which it is recognised, all of which are there
    file_names:  what the trainer calls its files
    fields:      what belongs in the dictionary
    weight_keys: where the weights are, the first that holds any
    counters:    where each counter is: keys joined by dots, `meta.iter`
    named:       names of files that say a counter, their number in a group; and the key that must hold just that
    usual:       the file that a resume takes whatever lies beside it
    newest:      the file that names the newest save
    """

    one_file = True
    keys: ClassVar[tuple[str, ...]] = ()
    file_names: ClassVar[re.Pattern[str]] = _NOTHING
    fields: ClassVar[tuple[Field, ...]] = ()
    weight_keys: ClassVar[tuple[str, ...]] = ()
    counters: ClassVar[Mapping[Counter, str]] = {}
    named: ClassVar[tuple[tuple[re.Pattern[str], str], ...]] = ()
    usual: ClassVar[str | None] = None
    newest: ClassVar[Newest | None] = None

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """By `signatures` where there are any; else by the keys of its dictionary, a file that can't be read by its name."""
        if self.signatures:
            return super().recognise(checkpoint)
        by_keys = Signature(must=(Sign(self._own_keys, most=len(self.keys)),))
        by_name = Signature(must=(Sign(self._unreadable, Tells.NAME),))
        return by_keys.match(checkpoint) or by_name.match(checkpoint)

    def _own_keys(self, checkpoint: Checkpoint) -> list[str]:
        file = self.file(checkpoint)
        values = checkpoint.files.contents(file.path) if file else None
        if file is None or not isinstance(values, Mapping) or not self.fits(file, values):
            return []
        return [f"'{key}' in {file.path}" for key in self.keys if key in values]

    def _unreadable(self, checkpoint: Checkpoint) -> list[str]:
        """A file by its name, of which nothing more is known."""
        file = self.file(checkpoint)
        if file is None or not self.file_names.fullmatch(file.name):
            return []
        try:
            checkpoint.files.contents(file.path)
        except FactUnavailable:
            return [file.path]
        return []

    def fits(self, file: Entry, values: Values) -> bool:
        """Whether a dictionary is this trainer's."""
        return all(key in values for key in self.keys)

    def file(self, checkpoint: Checkpoint) -> Entry | None:
        """The only torch file at the top, copies of the best one left out; or the one that a resume takes anyway."""
        listing = checkpoint.listing
        found = [e for e in checkpoint.files.of_format("torch") if "/" not in e.path and e.name.endswith(_SUFFIXES)]
        usual = next((e for e in found if e.name == self.usual), None)
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
        values = dictionary(checkpoint, path)
        scaler = self.scaled(values)
        if scaler is None:
            return TrainingState(path, values, self.fields)
        return TrainingState(path, values, (*(f for f in self.fields if f.name != scaler.name), scaler))

    def scaled(self, values: Values) -> Field | None:
        """What is expected of the gradient scaler where the saved options call for one; None where `fields` says it."""
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
        found = ((name, inside(state.values, key), key) for name, key in self.counters.items())
        return tuple(Recorded(name, value, state.path, key) for name, value, key in found if value is not None)

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """FactUnavailable where a counter is not valid (a rule reports it) or none is recorded."""
        recorded = checkpoint.recorded
        counts = sound_counts(recorded, updates_of(checkpoint))
        if not recorded:
            raise FactUnavailable("no progress is recorded")
        return self.standing(checkpoint, counts)

    def standing(self, checkpoint: Checkpoint, counts: Mapping[str, int]) -> Progress:
        """Where training stands, and what this trainer does from there.

        counts: those of `counters` that are recorded, all of them sound
        """
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
        newest = self.newest
        if newest is None:
            return ()
        path = f"../{newest.path}" if checkpoint.files.is_one_file else newest.path
        target, fault = checkpoint.files.small_text(path), checkpoint.files.small_text_fault(path)
        if fault:
            return (Pointer(path, "", exists=False, why=newest.without_target, fault=fault),)
        if target is None:
            missed = self.file_names.fullmatch(self.path(checkpoint)) and self._is_in_a_run(checkpoint, newest.of_a_run)
            return (
                (Pointer(path, "", exists=False, why=newest.without_pointer, severity=Severity.WARNING),)
                if missed
                else ()
            )
        named, own = target.rpartition("/")[2], self.path(checkpoint)
        there = checkpoint.files.sibling(named) if checkpoint.files.is_one_file else checkpoint.listing.get(named)
        newer = own if _number(own) > _number(named) else None
        return (Pointer(path, target, bool(named and there), newest.without_target, newer=newer),)

    def _is_in_a_run(self, checkpoint: Checkpoint, names: re.Pattern[str]) -> bool:
        """Whether the file lies where the trainer wrote it, and is not a copy alone in a directory."""
        tops = (e.path for e in checkpoint.listing if "/" not in e.path)
        beside = checkpoint.listing.siblings if checkpoint.files.is_one_file else tops
        own = self.path(checkpoint)
        return any(name != own and names.fullmatch(name) for name in beside)


def _number(name: str) -> int:
    """The number in a save's name; one without, `model_final`, is the last."""
    found = _NUMBER.findall(name)
    return int(found[-1][:18]) if found else 2**63
