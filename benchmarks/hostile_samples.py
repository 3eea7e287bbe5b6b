"""Small files for comparing scanners: payloads where and as scanners have missed them, and clean files of real writers.

Every payload is `os.system("true")` or something as harmless. Sources: the advisories and issue threads of the scanners.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import random
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

MAGIC = 0x1950A86A20F9469CFC6C


class Sample(NamedTuple):
    """One file. `says` tells in a few words what is special about it."""

    name: str
    says: str
    make: Callable[[], bytes]


class Calls:
    """Calls `os.system("true")` when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("true",)


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


PAYLOAD = b"cos\nsystem\n" + _text("true") + b"\x85R"
PROGRAM = b"\x80\x02" + PAYLOAD + b"."


def _asks(module: str, name: str) -> Callable[[], bytes]:
    return lambda: b"\x80\x02" + f"c{module}\n{name}\n".encode() + _text("true") + b"\x85R."


def _raw(program: bytes) -> Callable[[], bytes]:
    return lambda: program


def _saved(value: object, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def _zip(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


def _torch(program: bytes, method: int = zipfile.ZIP_STORED, more: dict[str, bytes] | None = None) -> bytes:
    return _zip({"data.pkl": program, "version": b"3\n", "byteorder": b"little", **(more or {})}, method)


def _legacy(position: int) -> Callable[[], bytes]:
    def make() -> bytes:
        values: tuple[object, ...] = (MAGIC, 1001, {"little_endian": True}, {}, [])
        streams = [pickle.dumps(value, 2) for value in values]
        streams[position] = PROGRAM
        return b"".join(streams)

    return make


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = len(PROGRAM) if name == "pickle" else 0
            archive.addfile(info, io.BytesIO(PROGRAM))
    return stream.getvalue()


def _flagged() -> bytes:
    """A zip whose entry is marked as encrypted in its own header only: torch goes by the directory."""
    data = bytearray(_torch(PROGRAM))
    struct.pack_into("<H", data, 6, 1)
    return bytes(data)


def _renamed() -> bytes:
    return _torch(PROGRAM).replace(b"archive/data.pkl", b"archive/data.txt", 1)


def _bad_checksum() -> bytes:
    data = bytearray(_torch(PROGRAM))
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 16, 1)
    return bytes(data)


def _doubled() -> bytes:
    return _zip({"DATA.PKL": PROGRAM, "data.pkl": b"\x80\x02}.", "version": b"3\n"})


def _behind_the_end() -> bytes:
    return _torch(PROGRAM) + b"PK\x05\x06" + bytes(10)


def _array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([Calls()], dtype=object), allow_pickle=True)
    return stream.getvalue()


def _doubling() -> bytes:
    steps = (b"q" + bytes([i]) + b"0h" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(64))
    return b"\x80\x02)" + b"".join(steps) + b"."


HOSTILE = (
    Sample("reduce.pkl", "`os.system` as pickle writes it", lambda: pickle.dumps(Calls())),
    Sample("reduce.pt", "the same in a torch file", lambda: _saved({"a": Calls()})),
    Sample("reduce-legacy.pt", "the same in the format before torch 1.6", lambda: _saved({"a": Calls()}, legacy=True)),
    Sample("protocol0.bin", "protocol 0, which begins with no mark, in a .bin", lambda: pickle.dumps(Calls(), 0)),
    Sample("no-suffix", "a pickle without a suffix", lambda: pickle.dumps(Calls())),
    Sample("lies.safetensors", "a pickle called .safetensors", lambda: pickle.dumps(Calls())),
    Sample("second.pkl", "the second of two pickles", lambda: pickle.dumps([1]) + pickle.dumps(Calls())),
    Sample("breaks.pkl", "the pickle breaks after the call", _raw(b"\x80\x02" + PAYLOAD + b"\xff\xff")),
    Sample("cut.pkl", "the pickle is cut short after the call", _raw(b"\x80\x02" + PAYLOAD + b"X\xff\xff")),
    Sample("popped.pkl", "the result is dropped", _raw(b"\x80\x02" + PAYLOAD + b"0}.")),
    Sample("inst.pkl", "INST", _raw(b"(S'true'\nios\nsystem\n.")),
    Sample("obj.pkl", "OBJ", _raw(b"\x80\x02(cos\nsystem\n" + _text("true") + b"o.")),
    Sample("newobj-ex.pkl", "NEWOBJ_EX", _raw(b"\x80\x04cos\nsystem\n" + _text("true") + b"\x85}\x92.")),
    Sample(
        "memo.pkl",
        "names from the memo, put there in another order",
        _raw(b"\x80\x04\x8c\x06system\x94\x8c\x02os\x940h\x01h\x00\x93\x8c\x04true\x85R."),
    ),
    Sample("short-string.pkl", "names as texts of Python 2", _raw(b"\x80\x04U\x02osU\x06system\x93\x8c\x04true\x85R.")),
    Sample(
        "dotted.pkl",
        "`pathlib` with `os.system`",
        _raw(b"\x80\x04\x8c\x07pathlib\x8c\x09os.system\x93\x8c\x04true\x85R."),
    ),
    Sample("resolve.pkl", "`pkgutil.resolve_name`", _asks("pkgutil", "resolve_name")),
    Sample("timeit.pkl", "`timeit.timeit`", _asks("timeit", "timeit")),
    Sample("pip.pkl", "`pip.main`", _asks("pip", "main")),
    Sample("collect-env.pkl", "`torch.utils.collect_env.run`", _asks("torch.utils.collect_env", "run")),
    Sample("runstring.pkl", "NumPy's `runstring`", _asks("numpy.testing._private.utils", "runstring")),
    Sample("dynamo.pkl", "`torch._dynamo.guards.GuardBuilder.get`", _asks("torch._dynamo.guards", "GuardBuilder.get")),
    Sample("handler.pkl", "`logging.FileHandler`", _asks("logging", "FileHandler")),
    Sample("uuid.pkl", "`uuid._get_command_stdout`", _asks("uuid", "_get_command_stdout")),
    Sample(
        "submodule.pkl",
        "a submodule of asyncio",
        _asks("asyncio.unix_events", "_UnixSubprocessTransport._start"),
    ),
    Sample("re-export.pkl", "`Popen` by way of another module", _asks("torch.utils.cpp_extension", "subprocess.Popen")),
    Sample("nobody-knows.pkl", "a class that nobody knows", _asks("some_project.models", "Net")),
    Sample("extension.pkl", "an extension code of copyreg", _raw(b"\x80\x02\x82\x01)R.")),
    Sample("nested.pkl", "bytes that are a pickle", lambda: pickle.dumps({"blob": pickle.dumps(Calls())})),
    Sample(
        "load-bytes.pkl",
        "`torch.storage._load_from_bytes`",
        _raw(b"\x80\x03ctorch.storage\n_load_from_bytes\nC" + bytes([len(PROGRAM)]) + PROGRAM + b"\x85R."),
    ),
    Sample("array.npy", "a NumPy array of objects", _array),
    Sample("legacy-magic.pt", "in the first of a legacy file's five pickles", _legacy(0)),
    Sample("legacy-keys.pt", "in the last of them", _legacy(4)),
    Sample("tar.pt", "torch's tar format, run before torch 2.6", _tar),
    Sample("deflated.pt", "a compressed data.pkl", lambda: _torch(PROGRAM, zipfile.ZIP_DEFLATED)),
    Sample(
        "extra.pt",
        "a further entry beside a clean data.pkl",
        lambda: _torch(b"\x80\x02}.", more={"extra.pkl": PROGRAM}),
    ),
    Sample("doubled.pt", "data.pkl twice, in upper and lower case", _doubled),
    Sample("renamed.pt", "the entry's own header has another name", _renamed),
    Sample("flagged.pt", "the entry's own header says encrypted", _flagged),
    Sample("checksum.pt", "a wrong checksum", _bad_checksum),
    Sample("behind.pt", "a second end record behind the archive", _behind_the_end),
    Sample("gzipped.pkl.gz", "a pickle in gzip", lambda: gzip.compress(pickle.dumps(Calls()))),
    Sample("memory.pkl", "nine bytes that take 16 GB", _raw(b"\x80\x02Nr\xff\xff\xff\x7f.")),
    Sample("doubling.pkl", "a value that unfolds to 2^64 parts", _doubling),
)


def _model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.BatchNorm1d(4))


def _optimizer() -> dict[str, Any]:
    model = _model()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    return {"optimizer": optimizer.state_dict(), "step": 1}


def _random_states() -> dict[str, Any]:
    return {"python": random.getstate(), "numpy": np.random.RandomState(0).get_state(), "torch": torch.get_rng_state()}


def _safetensors() -> bytes:
    from safetensors.torch import save

    content: bytes = save(_model().state_dict())
    return content


CLEAN = (
    Sample("model.pt", "a state dict", lambda: _saved(_model().state_dict())),
    Sample("model-legacy.pt", "the same in the old format", lambda: _saved(_model().state_dict(), legacy=True)),
    Sample("optimizer.pt", "AdamW's state", lambda: _saved(_optimizer())),
    Sample("random-states.pkl", "random states with NumPy's", lambda: _saved(_random_states())),
    Sample("arguments.pt", "an argparse.Namespace", lambda: _saved(argparse.Namespace(lr=0.1))),
    Sample("metrics.pt", "NumPy numbers", lambda: _saved({"loss": np.float64(1.5), "a": np.arange(3)})),
    Sample("network.pt", "a whole network of torch's own layers", lambda: _saved(_model())),
    Sample(
        "mmengine.pth",
        "mmengine's history: getattr on its own class",
        lambda: _torch(
            b"\x80\x02c__builtin__\ngetattr\n(cmmengine.logging.history_buffer\nHistoryBuffer\n"
            + _text("mean")
            + b"tR."
        ),
    ),
    Sample("plain.pkl", "plain values", lambda: pickle.dumps({"epoch": 1, "loss": [0.5]})),
    Sample("array.npy", "an array of numbers", lambda: _npy(np.arange(5))),
    Sample("model.safetensors", "safetensors", _safetensors),
    Sample("config.json", "JSON", lambda: json.dumps({"hidden_size": 4}).encode()),
)


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def write(directory: Path) -> None:
    """Write every sample into `hostile/` and `clean/` of a directory, each in a folder of its own."""
    for kind, samples in (("hostile", HOSTILE), ("clean", CLEAN)):
        for sample in samples:
            folder = directory / kind / sample.name.replace(".", "_")
            folder.mkdir(parents=True)
            (folder / sample.name).write_bytes(sample.make())
