"""`latest` and `latest_universal`: the files that `load_checkpoint` finds a save by."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ckpt_rules import Checkpoint, EntryKind, Pointer, Severity, conventions, own_name, saves_among
from ckpt_rules_deepspeed.files import Saved, saves_inside

_COMMON_TAG = re.compile(r"global_step\d+")
_LOST = "load_checkpoint without a tag stops with an AssertionError without a message"
_SILENT = "load_checkpoint without a tag finds no save, logs one line, and training starts from scratch"


def pointers_of(checkpoint: Checkpoint, saved: Saved) -> tuple[Pointer, ...]:
    """The pointer in the save directory, which lies above a tag's directory."""
    name = conventions.pointers.DEEPSPEED_UNIVERSAL if saved.universal else conventions.pointers.DEEPSPEED
    above = "" if saved.folder else "../"
    tag = checkpoint.files.small_text(f"{above}{name}")
    here = own_name(checkpoint)
    if fault := checkpoint.files.small_text_fault(f"{above}{name}"):
        return (Pointer(f"{above}{name}", "", exists=False, why=_why_unread(fault), fault=fault),)
    if tag is None and not _is_missed(checkpoint, name, above, here):
        return ()
    if not tag:
        return (Pointer(f"{above}{name}", "", False, _SILENT if tag is None else _LOST, severity=_severity(tag)),)
    return (
        Pointer(
            f"{above}{name}", tag, _leads(checkpoint, above, tag), _LOST, newer=_newer(checkpoint, saved, tag, here)
        ),
    )


def _is_missed(checkpoint: Checkpoint, name: str, above: str, here: str) -> bool:
    there = checkpoint.files.sibling(name) if above else checkpoint.listing.get(name)
    return there is None and name == conventions.pointers.DEEPSPEED and _COMMON_TAG.fullmatch(here) is not None


def _why_unread(fault: str) -> str:
    """What follows: what is not a file DeepSpeed takes for absent."""
    return _SILENT if fault.endswith("not a file") else "load_checkpoint without a tag stops"


def _severity(tag: str | None) -> Severity:
    return Severity.WARNING if tag is None else Severity.ERROR


def _leads(checkpoint: Checkpoint, above: str, tag: str) -> bool:
    if tag in (".", ".."):
        return False
    entry = checkpoint.files.sibling(tag) if above else checkpoint.listing.get(tag)
    return entry is not None and entry.kind is EntryKind.DIRECTORY


def _newer(checkpoint: Checkpoint, saved: Saved, tag: str, here: str) -> str | None:
    """The name of this save, where its number is the highest and the pointer names one with a lower number.

    Inside of another trainer's checkpoint, that of the save with the highest number.
    """
    if saved.folder:
        order = saves_among(s.folder.rstrip("/") for s in checkpoint.fact(saves_inside) if s.models)
        return order[-1] if tag in order[:-1] else None
    order = saves_among(_tags(checkpoint, here))
    return here if saved.models and order and order[-1] == here and tag in order[:-1] else None


def _tags(checkpoint: Checkpoint, here: str) -> Iterator[str]:
    yield here
    yield from (name for name in checkpoint.listing.siblings if _COMMON_TAG.fullmatch(name))
