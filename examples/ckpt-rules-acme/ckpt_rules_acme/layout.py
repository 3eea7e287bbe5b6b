"""What Acme's own trainer writes: `acme_state.pt` with the states, and a manifest `acme.json` with the counters."""

from __future__ import annotations

from ckpt_rules import (
    Checkpoint,
    Field,
    Layout,
    Progress,
    Recorded,
    Requirement,
    ResumePlan,
    Severity,
    Sign,
    Signature,
    TrainingState,
    dictionary,
    sound_counts,
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
    signatures = (  # either of the two files, so that a missing one is a finding and not another layout
        Signature(must=(Sign.file(STATE),), may=(Sign.file(MANIFEST),)),
        Signature(must=(Sign.file(MANIFEST),)),
    )

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """Both files."""
        return (
            Requirement((STATE,), "the optimizer starts from zero"),
            Requirement((MANIFEST,), "the trainer starts at update 0"),
        )

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The dictionary in `acme_state.pt`."""
        return TrainingState(STATE, dictionary(checkpoint, STATE), FIELDS)

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The manifest's `updates`."""
        updates = dictionary(checkpoint, MANIFEST).get("updates")  # `state/unreadable` says what is wrong with the file
        return (Recorded("global_step", updates, MANIFEST, "updates"),)

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """Updates done are updates expected."""
        updates = sound_counts(checkpoint.recorded)["global_step"]
        plan = ResumePlan(from_update=updates, unit="optimizer update")
        return Progress(global_step=updates, expected_updates=updates, plan=plan)
