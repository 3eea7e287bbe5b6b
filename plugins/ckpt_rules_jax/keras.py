"""Keras 3: `.keras` files, which are zip archives, and `.weights.h5` files beside a training_metadata.json."""

from __future__ import annotations

from typing import ClassVar

from ckpt_rules import (
    Checkpoint,
    Entry,
    FactUnavailable,
    Layout,
    ModelConfig,
    Progress,
    Requirement,
    ResumePlan,
    Sign,
    Signature,
    Tells,
    Weights,
    is_count,
    options,
)

_METADATA = "training_metadata.json"


class Keras(Layout):
    """A `.keras` or `.weights.h5` file, by itself or in a directory such as BackupAndRestore's."""

    name = "keras"
    title = "Keras file"
    signatures = (
        Signature(
            must=(Sign(lambda checkpoint: [e.path for e in keras_files(checkpoint)], most=2),),
            may=(Sign.file(_METADATA, tells=Tells.SHARED),),
        ),
    )
    one_file: ClassVar[bool] = True

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """BackupAndRestore stops at a training_metadata.json that it can't parse, and does without one."""
        there = checkpoint.listing.has_file(_METADATA)
        return (Requirement((_METADATA,), "BackupAndRestore reads the epoch from it"),) if there else ()

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """In HDF5, which is not looked into."""
        raise FactUnavailable("the weights are in HDF5, which is not read here")

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """Inside the archive."""
        raise FactUnavailable("the configuration is inside the archive")

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """By training_metadata.json of BackupAndRestore, which counts from 0; a resume reads the epoch, and not the batch."""
        values = options(checkpoint.files.contents(_METADATA)) if checkpoint.listing.has_file(_METADATA) else {}
        epoch, batch = values.get("epoch"), values.get("batch")
        if not is_count(epoch):
            raise FactUnavailable("a Keras file records no epoch")
        step = int(batch) + 1 if is_count(batch) and batch else 0
        again = f", because BackupAndRestore does not skip the {step:,} that were trained" if step else ""
        plan = ResumePlan(epoch=int(epoch) + 1, also=again)
        return Progress(epoch=int(epoch) + bool(step), step=step, complete=not step, plan=plan)


def keras_files(checkpoint: Checkpoint) -> list[Entry]:
    """Files of Keras at the top."""
    return [e for e in checkpoint.listing.files(top_only=True) if e.name.endswith((".keras", ".weights.h5"))]
