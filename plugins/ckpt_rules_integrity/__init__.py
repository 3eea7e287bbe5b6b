"""Rules about whether the bytes of a checkpoint are those that were written."""

from __future__ import annotations

from ckpt_rules import Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The `integrity/` family."""
    from ckpt_rules_integrity.checksums import Crc
    from ckpt_rules_integrity.chunks import BrokenChunk
    from ckpt_rules_integrity.digests import DigestDiffers, Unsigned
    from ckpt_rules_integrity.signatures import Signature

    return [BrokenChunk, Crc, DigestDiffers, Signature, Unsigned]
