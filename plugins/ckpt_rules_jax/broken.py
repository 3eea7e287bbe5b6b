"""weights/broken-keras-file: whether the files of Keras are whole, as far as their frames tell."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, Content, Entry, FactUnavailable, Place, Problem, Rule
from ckpt_rules_jax.keras import keras_files

_PARTS = ("metadata.json", "config.json", "model.weights.h5")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_VERSION_AT = 8
# Version of the superblock -> where the size of an offset, and where the address of the file's end lie.
# https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
_OLD, _NEW = (13, 40), (9, 28)


class BrokenKerasFile(Rule):
    """A Keras file is damaged.

    ## What it checks
    `.keras` files: that the zip directory is whole and lists metadata.json, config.json and model.weights.h5. `.weights.h5`
    files: that the file is as long as its HDF5 superblock says.

    ## Why it matters
    An interrupted save or copy leaves a file that Keras refuses with an error of the HDF5 library.

    ## How to repair
    Copy the file again if the original is whole; otherwise resume from an earlier save.
    """

    id = "weights/broken-keras-file"
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        files = keras_files(checkpoint)
        if not files:
            raise FactUnavailable("there are no Keras files")
        for entry in files:
            fault = _of_archive(checkpoint, entry) if entry.name.endswith(".keras") else _of_hdf5(checkpoint, entry)
            if fault and entry.size:
                yield Problem(
                    message=f"{entry.path} {fault}",
                    place=Place(path=entry.path),
                    help="copy it again if the original is whole, or resume from an earlier save",
                )


def _of_archive(checkpoint: Checkpoint, entry: Entry) -> str | None:
    archive = checkpoint.files.archive(entry.path)
    fatal = next((p for p in archive.problems if p.fatal), None)
    if fatal:
        return f"is a damaged zip archive: {fatal.message}"
    absent = [name for name in _PARTS if name not in archive.names]
    return f"lacks {', '.join(absent)}" if absent else None


def _of_hdf5(checkpoint: Checkpoint, entry: Entry) -> str | None:
    head = checkpoint.files.sniff(entry.path)
    if head.error is not None:
        return None
    if head.content is not Content.HDF5 or not head.head.startswith(_SIGNATURE):
        return f"is not a HDF5 file: its content is {head.content.value}"
    version = head.head[_VERSION_AT]
    size_at, end_at = _OLD if version < 2 else _NEW
    width = head.head[size_at]
    end = int.from_bytes(head.head[end_at : end_at + width], "little") if width in (4, 8) else 0
    if version < 2 and width == 4:
        end = int.from_bytes(head.head[32:36], "little")
    if version == 1:
        end = int.from_bytes(head.head[end_at + 4 : end_at + 4 + width], "little")
    return f"is {entry.size:,} bytes long, but its superblock says {end:,}" if end != entry.size else None
