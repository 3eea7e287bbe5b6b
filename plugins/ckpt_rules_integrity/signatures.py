"""integrity/signature: an OpenSSF model signature, against a public key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from ckpt_rules import (
    BOOKKEEPING,
    SIGNATURE_NAME,
    Checkpoint,
    EntryKind,
    FactUnavailable,
    Place,
    Problem,
    Reads,
    Rule,
)
from ckpt_rules_integrity.claims import claims_of

if TYPE_CHECKING:
    from model_signing import hashing

_LONGEST = 300
_MOST = 10


class Signature(Rule):
    """The signature of the checkpoint is missing or does not match its files.

    ## What it checks
    Where the ruleset gives a public key (option `key`): that `model.sig`, an OpenSSF model signature as `ckpt-rules
    seal --sign-key` and `model_signing sign key` write it, was made with the private key that belongs to it, and that
    every file is the one that was signed; files that git and the hub's client keep for themselves are ignored. No
    server is contacted. Needs the package model-signing (`ckpt-rules[signing]`).

    ## Why it matters
    A seal shows that nothing changed since it was written; a signature shows who wrote it. Someone who replaces the
    weights can seal them again, but can't sign them.

    ## How to repair
    Copy the checkpoint again from where it was signed. If you made the change, sign it again.
    """

    id = "integrity/signature"
    tags = frozenset({"integrity", "safety"})
    reads = Reads.BYTES

    key: str | None = Field(default=None, description="Path of the public key (PEM); without it the rule is skipped.")
    signature: str = Field(default=SIGNATURE_NAME, description="Path of the signature in the checkpoint.")

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        if self.key is None:
            raise FactUnavailable("the ruleset gives no public key to check a signature with (option `key`)")
        if not checkpoint.listing.has_file(self.signature):
            yield Problem(
                message=f"the checkpoint is not signed: there is no {self.signature}",
                place=Place(path=self.signature),
                help="copy the checkpoint from where it was signed, or sign it: ckpt-rules seal --sign-key",
            )
        elif fault := _fault(checkpoint, self.key, self.signature):
            yield Problem(
                message=f"{self.signature} does not match the files: {fault}",
                place=Place(path=self.signature),
                help="do not load it until you know who changed it; copy the checkpoint from where it was signed",
                data={"key": self.key},
            )


def _fault(checkpoint: Checkpoint, key: str, signature: str) -> str | None:
    """Why the signature does not hold, in the words of model-signing; None where it does."""
    try:
        from model_signing import verifying
    except ModuleNotFoundError:
        raise FactUnavailable("signatures need the package model-signing; install ckpt-rules[signing]") from None
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (OSError, ValueError, AttributeError) as error:
        why = "it is not an elliptic-curve key" if isinstance(error, AttributeError) else _words(error)
        raise FactUnavailable(f"the public key {key} can't be used: {why}", path=signature, blocked=True) from None
    if checkpoint.listing.truncated:
        raise FactUnavailable(f"not everything could be listed: {checkpoint.listing.truncated}", path=".", blocked=True)
    folder = next((e.path for e in checkpoint.listing if e.link and e.kind is EntryKind.DIRECTORY), None)
    if folder is not None:
        return f"{folder} is a link to a directory, and its contents can't be signed"
    if hashed := _as_signed(checkpoint, signature):
        verifier.set_hashing_config(hashed)
    try:
        verifier.verify(os.path.abspath(checkpoint.path), os.path.join(checkpoint.path, signature))
    except Exception as error:  # noqa: BLE001 - whatever a damaged signature makes its parser raise
        return _words(error)
    return None


def _as_signed(checkpoint: Checkpoint, signature: str) -> hashing.Config | None:
    """How files are hashed as the signer did it, but links followed: in the hub's cache every file is one."""
    from model_signing import hashing

    claims = claims_of(checkpoint, signature)
    if claims is None:
        return None
    how = claims.serialization
    config = hashing.Config()
    if how.method == "shards":
        config.use_shard_serialization(hashing_algorithm=how.hash_type, shard_size=how.shard_size)
    else:
        config.use_file_serialization(hashing_algorithm=how.hash_type)
    ignored = [path for path in (signature, *BOOKKEEPING) if not claims.covers(path)]
    return config.set_ignored_paths(paths=ignored, ignore_git_paths=False).set_allow_symlinks(True)


_CHANGED = re.compile(r"Hash mismatch for \\*'(.+?)\\*': Expected")
_OTHERS = re.compile(r"(Extra|Missing) files (?:found )?in model .+?: (.+?)[\"'](?:, [\"']|\])")


def _words(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(". ") or f"it can't be read ({type(error).__name__})"
    said = [f"{name} changed" for name in _CHANGED.findall(text)[:_MOST]]
    said += [f"{names} {'appeared' if kind == 'Extra' else 'vanished'}" for kind, names in _OTHERS.findall(text)]
    text = ", ".join(said) or text
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
