"""Signing a checkpoint with a key, through the package model-signing, which the extra `signing` installs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ckpt_rules.errors import UsageError
from ckpt_rules.facts.files import EntryKind
from ckpt_rules.facts.seal import BOOKKEEPING, SIGNATURE_NAME
from ckpt_rules.storage import reason
from ckpt_rules.writing import replace_file, sync_directory

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint


class Signer:
    """A private key that is ready to sign.

    key: its path (PEM, not encrypted), on one of the curves P-256, P-384 and P-521

    Raises `UsageError` where the package is not installed or the key can't be used.
    """

    def __init__(self, key: str) -> None:
        try:
            from model_signing import signing
        except ModuleNotFoundError:
            raise UsageError("signing needs the package model-signing; install ckpt-rules[signing]") from None
        try:
            self._config = signing.Config().use_elliptic_key_signer(private_key=key)
        except OSError as error:
            raise UsageError(f"the key {key} can't be read: {reason(error)}") from None
        except AttributeError:  # what model-signing makes of an RSA key
            raise UsageError(f"the key {key} can't be used: it lies on no elliptic curve") from None
        except (ValueError, TypeError) as error:
            raise UsageError(f"the key {key} can't be used: {_words(error)}") from None

    def sign(self, checkpoint: Checkpoint) -> None:
        """Write `model.sig`: an OpenSSF model signature over every file that is there now, links followed, but `BOOKKEEPING`.

        Raises `UsageError`, and leaves a signature that is there as it was, where that fails.
        """
        from model_signing import hashing

        folder = next((e.path for e in checkpoint.listing if e.link and e.kind is EntryKind.DIRECTORY), None)
        if folder is not None:
            raise UsageError(
                f"{checkpoint.path} is sealed, but can't be signed: {folder} is a link to a directory, and signatures do not "
                "follow those; put the directory in its place"
            )
        hashed = hashing.Config().set_ignored_paths(paths=[SIGNATURE_NAME, *BOOKKEEPING]).set_allow_symlinks(True)
        self._config.set_hashing_config(hashed)
        try:
            with tempfile.TemporaryDirectory() as elsewhere:
                fresh = Path(elsewhere, SIGNATURE_NAME)
                self._config.sign(os.path.abspath(checkpoint.path), fresh)
                replace_file(os.path.join(checkpoint.path, SIGNATURE_NAME), fresh.read_bytes())
            sync_directory(checkpoint.path)
        except (OSError, ValueError) as error:
            raise UsageError(f"{checkpoint.path} is sealed, but can't be signed: {_words(error)}") from None


def _words(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(". ") or type(error).__name__
