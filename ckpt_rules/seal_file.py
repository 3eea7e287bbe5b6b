"""The seal that lies in a checkpoint."""

from __future__ import annotations

from pydantic import ValidationError

from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.seal import SEAL_NAME, Seal
from ckpt_rules.files import Files


def read_seal(files: Files) -> Seal:
    """What `ckpt-rules seal` wrote down; FactUnavailable, with its path where it is there and damaged."""
    if files.listing.get(SEAL_NAME) is None:
        raise FactUnavailable("the checkpoint has no seal")
    file = files.json(SEAL_NAME)
    fault = next((p.message for p in file.problems), None)
    if fault is None:
        try:
            return Seal.model_validate(file.value)
        except ValidationError as error:
            first = error.errors()[0]
            fault = f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg'][0].lower()}{first['msg'][1:]}"
    raise FactUnavailable(f"the seal can't be read: {fault}", path=SEAL_NAME, blocked=True)
