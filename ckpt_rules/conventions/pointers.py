"""Files that name a save, beside it or inside of it: a trainer that is told a directory finds the newest one by them."""

from __future__ import annotations

from typing import Final

DEEPSPEED: Final = "latest"  # `DeepSpeedEngine.save_checkpoint` in deepspeed/runtime/engine.py
DEEPSPEED_UNIVERSAL: Final = "latest_universal"  # deepspeed/checkpoint/ds_to_universal.py
DETECTRON2: Final = "last_checkpoint"  # `Checkpointer.tag_last_checkpoint` in fvcore; MMEngine has the same
MEGATRON: Final = (
    "latest_checkpointed_iteration.txt"  # `get_checkpoint_tracker_filename` in Megatron-LM's checkpointing.py
)
TENSORFLOW: Final = "checkpoint"  # `tf.train.Checkpoint`; Orbax keeps a tree of its own under this name

COMMON: Final = frozenset({DEEPSPEED, DETECTRON2, MEGATRON})
