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
    metadata: int = Field(
        default=1024,
        ge=1,
        description="MiB of the `.metadata` of a distributed checkpoint; to read it takes about three times as much memory.",
    )
    opcodes: int = Field(default=10_000_000, ge=1, description="Opcodes of all pickles of one file.")
    values: int = Field(default=8_000_000, ge=1, description="Values that one pickle unfolds into.")
    levels: int = Field(default=200, ge=1, le=300, description="Levels of nesting of the values of one file.")
    marks: int = Field(default=2_000, ge=1, description="Values of one pickle that are begun and not yet finished.")
    memo_gap: int = Field(
        default=4_096, ge=0, description="Largest allowed gap between consecutive memo indices of a pickle."
    )
    odd_keys: int = Field(
        default=10_000,
        ge=0,
        description="Keys of one pickle that are tuples or huge numbers, which can be made to collide.",
    )
    key_parts: int = Field(default=1_000, ge=1, description="Parts of one key that is a tuple.")
    key_bits: int = Field(default=4_096, ge=64, description="Bits of a number that is a key.")
    enclosed: int = Field(
        default=1_000,
        ge=0,
        description="Embedded or trailing pickles and archives per pickle, and unexpected entries per archive.",
    )
    parts: int = Field(default=20_000, ge=1, description="Different objects of one file of a distributed checkpoint.")
    nesting: int = Field(default=5, ge=0, le=50, description="Levels of pickles and archives inside one another.")
    depth: int = Field(default=64, ge=1, le=500, description="Directories inside one another.")
    entries: int = Field(
        default=200_000,
        ge=1,
        description="Files of a checkpoint, and records of one zip archive or members of one tar.",
    )
    seconds: float = Field(default=60, gt=0, description="Seconds that the listing of a checkpoint may take.")
    outside_links: bool = Field(
        default=True, description="Whether links are followed out of the checkpoint, as the hub's cache needs it."
    )


DEFAULT_LIMITS: Final = Limits()
