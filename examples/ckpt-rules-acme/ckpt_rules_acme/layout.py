"""What Acme's own trainer writes: `acme_state.pt` with the states, and a manifest `acme.json` with the counters."""

from __future__ import annotations

from collections.abc import Mapping

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Field,
    Layout,
    Match,
    Progress,
    Recorded,
    Requirement,
    ResumePlan,
    Severity,
    TrainingState,
    is_count,
)

STATE, MANIFEST = "acme_state.pt", "acme.json"
FIELDS = (
    Field("optimizer", ("optim",), Severity.ERROR, "the moments restart from zero"),
    Field("scheduler", ("sched",)),
)


class AcmeTrainer(Layout):
    """Counts optimizer updates, and nothing else."""

    name = "acme"
    title = "Acme trainer checkpoint"

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """Either of the two files, so that a missing one is a finding and not another layout."""
        found = tuple(name for name in (STATE, MANIFEST) if checkpoint.listing.get(name))
        return Match(95, found) if found else None

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """Both files."""
        return (
            Requirement((STATE,), "the optimizer starts from zero"),
            Requirement((MANIFEST,), "the trainer starts at update 0"),
        )

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The dictionary in `acme_state.pt`."""
        file = checkpoint.files.torch_file(STATE)
        if not file.readable or not isinstance(file.value, Mapping):
            raise FactUnavailable(f"{STATE} is damaged", path=STATE, blocked=True)
        return TrainingState(STATE, file.value, FIELDS)

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The manifest's `updates`."""
        file = checkpoint.files.json(MANIFEST)
        if not isinstance(file.value, Mapping):  # `state/unreadable` says what is wrong with a file that we require
            raise FactUnavailable(f"{MANIFEST} is damaged", path=MANIFEST, blocked=True)
        updates = file.value.get("updates")
        return (Recorded("global_step", updates, MANIFEST, "updates"),)

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """Updates done are updates expected."""
        (recorded,) = checkpoint.recorded
        if not is_count(recorded.value):
            raise FactUnavailable(f"'updates' in {MANIFEST} is no count", path=MANIFEST, blocked=True)
        updates = int(recorded.value)
        plan = ResumePlan(f"training continues at optimizer update {updates + 1:,}", from_update=updates)
        return Progress(global_step=updates, expected_updates=updates, plan=plan)
