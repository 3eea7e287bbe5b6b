"""What an OpenSSF model signature says that it was made of; whether that is true is found out by who verifies it."""

from __future__ import annotations

import base64
from typing import Literal

from pydantic import BaseModel

from ckpt_rules import Checkpoint, FactUnavailable


class Serialization(BaseModel):
    """How the files were hashed: each as a whole, or in shards of `shard_size` bytes."""

    method: Literal["files", "shards"]
    hash_type: Literal["sha256", "blake2", "blake3"]
    shard_size: int = 1_000_000_000


class Resource(BaseModel):
    """A file, or a shard of one."""

    name: str


class Claims(BaseModel):
    """The predicate of the signed statement."""

    serialization: Serialization
    resources: list[Resource]

    def covers(self, path: str) -> bool:
        """Whether a file, or one below a directory, was signed."""
        return any(r.name == path or r.name.startswith((f"{path}/", f"{path}:")) for r in self.resources)


class _Statement(BaseModel):
    predicate: Claims


def claims_of(checkpoint: Checkpoint, signature: str) -> Claims | None:
    """What the signature at a path says; None where it is damaged, or older than model-signing 1.0."""
    bundle = checkpoint.files.json(signature)
    for problem in bundle.problems:
        if problem.code == "limit":
            raise FactUnavailable(
                f"the signature {signature} can't be read: {problem.message}", path=signature, blocked=True
            )
    try:
        payload = bundle.value["dsseEnvelope"]["payload"]  # type: ignore[index]
        return _Statement.model_validate_json(base64.b64decode(payload)).predicate
    except (KeyError, TypeError, ValueError):
        return None
