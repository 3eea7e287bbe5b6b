"""The seal of a checkpoint: what its files were when somebody vouched for them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

SEAL_NAME = "ckpt-rules.seal.json"
SIGNATURE_NAME = "model.sig"

BOOKKEEPING = (".git", ".gitattributes", ".github", ".gitignore", ".cache/huggingface")
"""What git and the hub's client note beside the files of a checkpoint: it comes and goes as they are run, and no trainer reads it."""

Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def is_bookkeeping(path: str) -> bool:
    """Whether a path, relative to the checkpoint, is one of `BOOKKEEPING` or lies in one."""
    return any(path == name or path.startswith(f"{name}/") for name in BOOKKEEPING)


class _Model(BaseModel):
    # A later version may say more; what this one knows is still checked.
    model_config = ConfigDict(frozen=True, extra="ignore")


class SealedFile(_Model):
    """One file as it was sealed."""

    size: int = Field(ge=0, description="Bytes.")
    digest: Hex = Field(description="In hexadecimal, by the algorithm of the seal.")


class SealedProgress(_Model):
    """How far training was, where the layout could tell."""

    epoch: int | None = None
    step: int | None = None
    global_step: int | None = None
    updates: int | None = Field(default=None, description="Optimizer updates done.")


class Seal(_Model):
    """Sizes and digests of every file of a checkpoint but the seal, its signature and `BOOKKEEPING`."""

    version: Literal[1] = Field(default=1, description="Of this format.")
    tool: str = Field(description="What wrote it: `ckpt-rules 0.1.0`.")
    created: datetime = Field(description="When, in UTC.")
    layout: str = Field(description="The name of the layout that the checkpoint was read as.")
    progress: SealedProgress | None = None
    algorithm: Literal["blake3", "sha256"] = "blake3"
    files: dict[str, SealedFile] = Field(description="By path, relative to the checkpoint, with forward slashes.")
