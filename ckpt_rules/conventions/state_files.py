"""Names of files of training state."""

from __future__ import annotations

import re
from typing import Final

ARGUMENTS: Final = "training_args.bin"  # transformers' Trainer: transformers/trainer.py
TRAINER_STATE: Final = "trainer_state.json"  # the same
TRAINER_OPTIMIZER: Final = "optimizer.pt"  # the same
TRAINER_SCHEDULER: Final = "scheduler.pt"  # the same

ACCELERATE_OPTIMIZER: Final = "optimizer.bin"  # Accelerate, the first of several: accelerate/checkpointing.py
ACCELERATE_SCHEDULER: Final = "scheduler.bin"  # the same

SCALER: Final = "scaler.pt"  # both

STEMS: Final = (
    "optim", "optimizer", "scheduler", "scaler", "sampler", "training_state", "train_state",
    "random_states", "custom_checkpoint",  # Accelerate: accelerate/utils/constants.py, accelerate/accelerator.py
)  # fmt: skip
"""What scripts and Accelerate call a part of the training state, lower case, before a number, a rank or the suffix."""

TRAINER_RNG: Final = re.compile(r"rng_state(?:_(?P<rank>\d{1,6}))?\.pth")
"""Random-number states of transformers' Trainer: of the only process, or of a rank (`_save_rng_state` in transformers/trainer.py)."""

ACCELERATE_RNG: Final = re.compile(r"random_states_(?P<rank>\d{1,6})\.pkl")
"""Those of a rank of Accelerate (`RNG_STATE_NAME` in accelerate/utils/constants.py)."""

RNG_OF_RANK: Final = re.compile(r"(?P<stem>rng_state|random_states)_(?P<number>\d{1,6})\.(?P<suffix>pth|pkl|pt)")
"""The names of both, and those of scripts after their example."""
