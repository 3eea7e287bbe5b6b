"""Where we report an error in what a loader takes, and why that is meant to be so."""

from __future__ import annotations

_BUGS = "torch.load takes it by chance and torch.save never writes it"
_PICKLE = "Python's unpickler, which torch.load uses with weights_only=False, refuses it"

ALLOWED: tuple[tuple[str, str, str, str], ...] = (
    ("zip legacy", "pickle", "has protocol [0-9]+; the highest", f"a protocol that does not exist: {_PICKLE}"),
    (
        "zip legacy",
        "unsafe-load",
        "it uses pickle protocol",
        "protocols 4 and 5 announce opcodes that the loader lacks",
    ),
    ("zip legacy", "pickle", "which is not a device", "without map_location, torch.load refuses the device"),
    ("zip legacy", "limit", "numbers a value .* after", "a memo with such a gap is made to exhaust memory"),
    ("zip legacy", "pickle", "with arguments that are not a tuple", _PICKLE),
    ("zip legacy", "pickle", "a storage is referred to without", f"a key or a size of the wrong type: {_BUGS}"),
    (
        "legacy",
        "storage-missing",
        "that the object refers to are not in the file",
        "the tensor would hold whatever lay in memory",
    ),
    (
        "legacy",
        "storage-bounds",
        "needs the first .* of the storage .* which has 0$",
        "the loader enlarges a storage without bytes, and the tensor holds whatever lay in memory",
    ),
    (
        "legacy",
        "storage-size",
        "elements where its tensors need",
        "the storage is resized or filled in part, behind the tensor's back",
    ),
    (
        "zip legacy",
        "pickle",
        "is called as if it were a function",
        f"a class for storages or tensors is called: {_BUGS}",
    ),
    (
        "zip legacy",
        "pickle",
        "called with arguments that it does not take",
        f"of a type that no writer passes: {_BUGS}",
    ),
    ("zip legacy", "pickle", "a state is set in a TensorInfo", "as torch 0.1 wrote it; no file of ours is that old"),
    ("zip legacy", "pickle", "which are not all sizes", f"booleans or negative strides: {_BUGS}"),
    ("zip legacy", "pickle", "dimensions and 0 strides", f"without strides it is contiguous: {_BUGS}"),
    (
        "zip",
        "record",
        "where a number belongs|^the record '.*' takes|where torch reads file formats|where torch knows|where torch writes",
        "small records that torch.save writes in one way only",
    ),
    ("zip", "entry-header", "inside '.*', which starts at", "two entries share bytes: two readers see two files"),
    (
        "zip",
        "entry-header",
        "is marked as a directory and|own header should lie at byte|are announced|pass the end of the file|be decompressed",
        "the entry can't be read; torch.load passes it only where it never looks",
    ),
    (
        "zip",
        "directory",
        "zip64 end record should lie at",
        "the 64-bit records are damaged, and other readers refuse the archive",
    ),
    (
        "zip",
        "directory",
        "announces 64-bit sizes",
        "the entry's size is unknown; torch.load passes it only where it never looks",
    ),
    (
        "legacy",
        "not-torch",
        "neither a zip archive nor a pickle",
        "the first pickle is not a magic number, up to a limit of ours",
    ),
    ("legacy", "pickle", "which is not a list", f"a set or a tuple: {_BUGS}"),
    ("zip", "limit", "compressed storages take more", "torch.save compresses nothing"),
    ("zip", "ambiguous", "lists '.*' twice, and readers differ", "two readers would see two files"),
    ("zip", "storage-missing", "\0", "torch.load cuts names at a zero byte"),
    (
        "zip",
        "directory",
        "should span .* but its end record lies at",
        "the directory would overlap the record that ends it",
    ),
    ("json", "limit", "nested too deeply", "deeper than any configuration"),
)
"""Formats, the code of our problem, a pattern that its message matches, and the reason."""

UNKNOWABLE = (
    ("zip legacy", "Expected one of cpu, cuda, .* device type", "a device that some plugin of PyTorch may bring along"),
)
"""Formats, what a loader says in its refusal, and why no reader of bytes can know."""
