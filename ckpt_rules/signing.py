"""Signing a checkpoint with a key, through the package model-signing, which the extra `signing` installs."""

from __future__ import annotations

import os

from ckpt_rules.errors import UsageError
from ckpt_rules.storage import reason

SIGNATURE_NAME = "model.sig"


def sign_checkpoint(path: str, key: str) -> None:
    """Write `model.sig` into a checkpoint: an OpenSSF model signature over every file that is there now.

    key: path of a private key on an elliptic curve (PEM, not encrypted)

    Raises `UsageError` where the package is not installed or the key can't be used.
    """
    try:
        from model_signing import hashing, signing
    except ModuleNotFoundError:
        raise UsageError("signing needs the package model-signing; install ckpt-rules[signing]") from None
    signature = os.path.join(path, SIGNATURE_NAME)
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key)
    except OSError as error:
        raise UsageError(f"the key {key} can't be read: {reason(error)}") from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"the key {key} can't be used: {_words(error)}") from None
    hashed = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
    try:
        config.set_hashing_config(hashed).sign(path, signature)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be signed: {_words(error)}") from None


def _words(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(". ") or type(error).__name__
