"""How much of a checkpoint is read: bounds that real checkpoints stay below."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

MIB: Final = 1 << 20


class Limits(BaseModel):
    """What the reading of one checkpoint may take. A file past a limit is not read, and a finding says so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory: int = Field(
        default=112, ge=1, description="MiB, by estimate, that all values read from one checkpoint may take together."
    )
    structure: int = Field(
        default=64, ge=1, le=2047, description="MiB of one JSON file, one pickle, or one zip directory."
    )
    opcodes: int = Field(default=10_000_000, ge=1, description="Opcodes of all pickles of one file.")
    values: int = Field(default=8_000_000, ge=1, description="Values that one pickle unfolds into.")
    levels: int = Field(default=200, ge=1, le=300, description="Levels of nesting of the values of one file.")
    entries: int = Field(default=200_000, ge=1, description="Files of a checkpoint, and records of one zip archive.")
    outside_links: bool = Field(
        default=True, description="Whether links are followed out of the checkpoint, as the hub's cache needs it."
    )


DEFAULT_LIMITS: Final = Limits()
