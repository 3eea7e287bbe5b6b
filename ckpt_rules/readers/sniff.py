"""What a file is, told from its first bytes, and what its name promises."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ckpt_rules.conventions.saves import UNFINISHED
from ckpt_rules.conventions.suffixes import TORCH
from ckpt_rules.facts.files import Content, FileHead

HEAD_NBYTES = 1024

_MAGIC = (
    (b"version https://git-lfs.github.com/spec/", Content.LFS_POINTER),
    (b"PK\x03\x04", Content.ZIP),
    (b"PK\x05\x06", Content.ZIP),
    (b"\x1f\x8b", Content.GZIP),
    (b"7z\xbc\xaf\x27\x1c", Content.SEVEN_ZIP),
    (b"\x89HDF\r\n\x1a\n", Content.HDF5),
    (b"\x93NUMPY", Content.NUMPY),
    (b"GGUF", Content.GGUF),
)
# torch.save writes the pickle first, in a folder of the archive's name; before torch 1.6 it began with a number of its own.
_TORCH_ZIP = re.compile(rb"PK\x03\x04.{22}(?P<length>..)..(?P<name>[^/\0]+/data\.pkl)", re.DOTALL)
_TORCH_LEGACY = re.compile(rb"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.")
_ASIDE = re.compile(rf".*(?:{'|'.join(UNFINISHED)}|\.bak|\.old|\.orig|~)\d*(?:[._-].*)?", re.IGNORECASE)
_HTML = re.compile(rb"(?:<!doctype\s+html|<html|<head|<body|<script)", re.IGNORECASE)
_PROTOCOL = re.compile(rb"\x80[\x02-\x05]")


@dataclass(frozen=True, slots=True)
class ExpectedFormat:
    """What a file name promises: a format, and the kinds of content that its reader can make sense of.

    certain: False where files of this name often hold something else altogether
    """

    name: str
    contents: frozenset[Content]
    certain: bool = True


_SAFETENSORS = ExpectedFormat("safetensors", frozenset({Content.SAFETENSORS, Content.BINARY, Content.ZEROS}))
_TORCH = ExpectedFormat("torch", frozenset({Content.ZIP, Content.PICKLE, Content.BINARY, Content.ZEROS}))
_TORCH_IF_IT_LOOKS_SO = ExpectedFormat("torch", frozenset({Content.ZIP, Content.PICKLE}), certain=False)
_JSON = ExpectedFormat("json", frozenset({Content.JSON, Content.TEXT, Content.BINARY, Content.ZEROS}))

# `.bin` is also what people call a raw data set (nanoGPT's train.bin), `.tar` a real tar archive.
_TORCH_BY_NAME = re.compile(
    r"(?:pytorch_model|adapter_model|diffusion_pytorch_model|model|optimizer|scheduler|training_args|training_state)"
    r"(?:[._-].*)?\.bin|(?:random_states|custom_checkpoint)_\d+\.pkl"
)


def expected_format(name: str) -> ExpectedFormat | None:
    """What a file of this name ought to hold; None where the name promises nothing that we can read."""
    lower = name.lower()
    if lower.endswith(".safetensors"):
        return _SAFETENSORS
    if lower.endswith(TORCH) or _TORCH_BY_NAME.fullmatch(lower):
        return _TORCH
    if lower.endswith((".bin", ".pkl")):
        return _TORCH_IF_IT_LOOKS_SO
    if lower.endswith(".json"):
        return _JSON
    return None


def format_by_content(name: str, head: FileHead) -> str | None:
    """The format of a file whose name promises nothing, where its first bytes leave no doubt; None for what was put aside.

    A `.distcp` holds many torch files, each to be found by the metadata.
    """
    if expected_format(name) is not None or _ASIDE.fullmatch(name) or name.endswith(".distcp"):
        return None
    if head.content is Content.SAFETENSORS:
        return "safetensors"
    found = _TORCH_ZIP.match(head.head)
    whole = found and int.from_bytes(found["length"], "little") == len(found["name"])
    return "torch" if whole or _TORCH_LEGACY.match(head.head) else None


def sniff(head: bytes, size: int) -> Content:
    """What the first bytes of a file of `size` bytes say that it is."""
    if size == 0:
        return Content.EMPTY
    for magic, content in _MAGIC:
        if head.startswith(magic):
            return content
    if head[257:262] == b"ustar":
        return Content.TAR
    if _is_safetensors(head):
        return Content.SAFETENSORS
    if _PROTOCOL.match(head):
        return Content.PICKLE
    return _sniff_text(head)


def _is_safetensors(head: bytes) -> bool:
    # A header that starts like JSON after eight bytes of length is safetensors even where the length is wrong; but eight
    # characters of text are not a length.
    text = head[8:].lstrip(b" \t\r\n")
    if len(text) < len(b"{}") or not head[:8].strip(b' \t\r\n[{,:"'):
        return False
    return text[:1] == b"{" and text[1:2] in b'"} \t\r\n' and int.from_bytes(head[:8], "little") > 1


def _sniff_text(head: bytes) -> Content:
    if not head.strip(b"\0"):
        return Content.ZEROS
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        return (
            Content.HTML if _HTML.match(text) else Content.XML if text.startswith(b"<?xml") else _text_or_binary(head)
        )
    if text.startswith((b"{", b"[")) and _text_or_binary(head.removeprefix(b"\xef\xbb\xbf")) is Content.TEXT:
        return Content.JSON
    return _text_or_binary(head)


def _text_or_binary(head: bytes) -> Content:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if len(head) - error.start > 3 or len(head) < HEAD_NBYTES:
            return Content.BINARY
        text = head[: error.start].decode()
    return Content.TEXT if all(c.isprintable() or c in "\t\r\n\f" for c in text) else Content.BINARY
