"""Pickles and archives as attackers, and as trainers, write them."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zipfile

import torch

ZIP_PICKLE = "archive/data.pkl"


class Calls:
    """An object that calls `function(*args)` when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def evil():
    return Calls(os.system, "true")


def saved(value, *, legacy=False):
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def script():
    """A TorchScript archive."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), stream)
    return stream.getvalue()


def with_pickle(program, *, method=zipfile.ZIP_STORED, **entries):
    """A torch file with this data.pkl and further entries."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(ZIP_PICKLE, program)
        for name, content in {"version": b"3\n", "byteorder": b"little", **entries}.items():
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


def asks_for(*names):
    """A pickle of protocol 2 that asks for `module name` pairs and keeps them in a list."""
    return b"\x80\x02](" + b"".join(f"c{m}\n{n}\n".encode() for m, n in names) + b"e."


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw
