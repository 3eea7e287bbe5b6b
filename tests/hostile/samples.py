"""Hostile files: payloads where and as scanners have missed them, after the advisories and issue threads of the scanners.

Every payload makes an empty file `acted` in the working directory and does nothing else.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.hostile import archives, programs
from tests.hostile.programs import CODE, HARMLESS, MARKER, PAYLOAD, PROGRAM, SHELL, calls, calls_method, raw, text

Files = bytes | dict[str, bytes]


class Sample(NamedTuple):
    """One file, or some that belong together.

    name: of the file that a loader is given
    says: what is special about it, in a few words
    make: its bytes, or those of each file by its name
    loader: which of `LOADERS` acts on a hostile one; empty where none does
    answer: the worst severity that ckpt-rules has for it in its default ruleset; empty where it says nothing
    """

    name: str
    says: str
    make: Callable[[], Files]
    loader: str = ""
    answer: str = "error"

    def write(self, folder: Path) -> Path:
        """Write it into this folder, which is made, and say where it lies."""
        made = self.make()
        folder.mkdir(parents=True)
        for name, content in ({self.name: made} if isinstance(made, bytes) else made).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        return folder / self.name


LOADERS = {
    "pickle": "import pickle; pickle.load(io.BytesIO(data))",
    "pickle twice": "import pickle; stream = io.BytesIO(data); pickle.load(stream); pickle.load(stream)",
    "gzip": "import gzip, pickle; pickle.loads(gzip.decompress(data))",
    "numpy": "import numpy; numpy.load(path, allow_pickle=True)",
    "torch": "import torch; torch.load(path, weights_only=False)",
}
"""What a victim runs; `path` is the file, `data` its bytes."""


class Calls:
    """Calls `os.system` when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, (SHELL,)


def _saved(value: object, *, legacy: bool = False) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def _array() -> bytes:
    import numpy as np

    stream = io.BytesIO()
    np.save(stream, np.array([Calls()], dtype=object), allow_pickle=True)
    return stream.getvalue()


def _doubling(last: bytes) -> Callable[[], bytes]:
    steps = (b"q" + bytes([i]) + b"0h" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(64))
    return raw(b"\x80\x02)" + b"".join(steps) + last)


def _safetensors(metadata: dict[str, str], *, padding: int = 0, behind: bytes = b"") -> Callable[[], bytes]:
    entries = {"__metadata__": metadata, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    header = json.dumps(entries).encode() + b" " * padding
    return raw(struct.pack("<Q", len(header)) + header + bytes(4) + behind)


def _named_twice() -> bytes:
    entry = b'"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = b"{" + entry + b"," + entry + b"}"
    return struct.pack("<Q", len(header)) + header + bytes(4)


WRITTEN = (
    Sample("reduce.pkl", "`os.system` as pickle writes it", lambda: pickle.dumps(Calls()), "pickle"),
    Sample("reduce.pt", "the same in a torch file", lambda: _saved({"a": Calls()}), "torch"),
    Sample(
        "reduce-legacy.pt",
        "the same in the format before torch 1.6",
        lambda: _saved({"a": Calls()}, legacy=True),
        "torch",
    ),
    Sample("popped.pkl", "the result is dropped", raw(b"\x80\x02" + PAYLOAD + b"0}."), "pickle"),
    Sample("key.pkl", "the call makes a key of a dictionary", raw(b"\x80\x02}" + PAYLOAD + b"Ns."), "pickle"),
    Sample("inst.pkl", "INST", raw(f"(S'{SHELL}'\nios\nsystem\n.".encode()), "pickle"),
    Sample("obj.pkl", "OBJ", raw(b"\x80\x02(cos\nsystem\n" + text(SHELL) + b"o."), "pickle"),
    Sample("newobj-ex.pkl", "NEWOBJ_EX, and no other call", programs.new_objects, "pickle"),
    Sample(
        "memo.pkl",
        "names from the memo, put there in another order",
        raw(b"\x80\x04\x8c\x06system\x94\x8c\x02os\x940h\x01h\x00\x93" + text(SHELL) + b"\x85R."),
        "pickle",
    ),
    Sample(
        "short-string.pkl",
        "names as texts of Python 2",
        raw(b"\x80\x04U\x02osU\x06system\x93" + text(SHELL) + b"\x85R."),
        "pickle",
    ),
    Sample("dotted.pkl", "`pathlib` with `os.system`", calls("pathlib", "os.system", SHELL), "pickle"),
    Sample("dunder.pkl", "`builtins` with `eval.__call__`", calls("builtins", "eval.__call__", CODE), "pickle"),
    Sample("breaks.pkl", "the pickle breaks after the call", raw(b"\x80\x02" + PAYLOAD + b"\xff\xff"), "pickle"),
    Sample("cut.pkl", "the pickle is cut short after the call", raw(b"\x80\x02" + PAYLOAD + b"X\xff\xff"), "pickle"),
    Sample("second.pkl", "the second of two pickles", lambda: pickle.dumps([1]) + PROGRAM, "pickle twice"),
    Sample("straddled.pkl", "a frame that ends within an opcode hides it", programs.straddled, "pickle"),
    Sample("replaced.pkl", "`sys.modules` put in the place of `sys`", programs.module_replaced, "pickle"),
    Sample("built.pkl", "BUILD on a module, no name but torch's and NumPy's", programs.module_built, "pickle"),
    Sample("extension.pkl", "an extension code of copyreg", raw(b"\x80\x02\x82\x01)R.")),
    Sample("nested.pkl", "bytes that are a pickle", lambda: pickle.dumps({"blob": PROGRAM})),
    Sample("loads.pkl", "`pickle.loads` of such bytes", calls("_pickle", "loads", PROGRAM), "pickle"),
    Sample(
        "load-bytes.pkl",
        "`torch.storage._load_from_bytes`",
        calls("torch.storage", "_load_from_bytes", PROGRAM),
        "pickle",
    ),
)
"""How a payload may be written."""

NAMES = (
    Sample("resolve.pkl", "`pkgutil.resolve_name`", programs.resolved, "pickle"),
    Sample("attributes.pkl", "`importlib` and `operator.attrgetter`", programs.attribute_chain, "pickle"),
    Sample("method-caller.pkl", "`importlib` and `operator.methodcaller`", programs.method_caller, "pickle"),
    Sample("ctypes.pkl", "`ctypes.CDLL`", programs.foreign_function, "pickle"),
    Sample("code-object.pkl", "`types.CodeType` and `types.FunctionType`", programs.code_object, "pickle"),
    Sample("pip.pkl", "`pip.main`", calls("pip", "main", ["--log", MARKER, "cache", "dir"]), "pickle"),
    Sample("timeit.pkl", "`timeit.timeit`", calls("timeit", "timeit", "pass", CODE), "pickle"),
    Sample("runpy.pkl", "`runpy._run_code`", calls("runpy", "_run_code", CODE, {}), "pickle"),
    Sample("pdb.pkl", "`pdb.run`", calls("pdb", "run", CODE), "pickle"),
    Sample("bdb.pkl", "`bdb.Bdb.run`", calls_method("bdb", "Bdb", "run", CODE), "pickle"),
    Sample("doctest.pkl", "`doctest.debug_script`", calls("doctest", "debug_script", CODE), "pickle"),
    Sample("pydoc.pkl", "`pydoc.pipepager`", calls("pydoc", "pipepager", "", SHELL), "pickle"),
    Sample("pty.pkl", "`pty.spawn`", calls("pty", "spawn", SHELL.split()), "pickle"),
    Sample("cprofile.pkl", "`cProfile.run`", calls("cProfile", "run", CODE), "pickle"),
    Sample("profile.pkl", "`profile.run`", calls("profile", "run", CODE), "pickle"),
    Sample(
        "code.pkl",
        "`code.InteractiveInterpreter`",
        calls_method("code", "InteractiveInterpreter", "runsource", CODE),
        "pickle",
    ),
    Sample("idle.pkl", "`idlelib.calltip.get_entity`", calls("idlelib.calltip", "get_entity", CODE), "pickle"),
    Sample(
        "grammar.pkl",
        "`lib2to3`'s own unpickling",
        calls_method("lib2to3.pgen2.grammar", "Grammar", "loads", PROGRAM),
        "pickle",
    ),
    Sample("handler.pkl", "`logging.FileHandler`", calls("logging", "FileHandler", MARKER), "pickle"),
    Sample("file-io.pkl", "`io.FileIO`", calls("io", "FileIO", MARKER, "w"), "pickle"),
    Sample(
        "retrieve.pkl",
        "`urllib.request.urlretrieve`",
        calls("urllib.request", "urlretrieve", "file:/dev/null", MARKER),
        "pickle",
    ),
    Sample("uuid.pkl", "`uuid._get_command_stdout`", calls("uuid", "_get_command_stdout", *SHELL.split()), "pickle"),
    Sample("osx.pkl", "`_osx_support._read_output`", calls("_osx_support", "_read_output", SHELL), "pickle"),
    Sample("imap.pkl", "`imaplib.IMAP4_stream`", calls("imaplib", "IMAP4_stream", SHELL), "pickle"),
    Sample(
        "spawn.pkl",
        "`multiprocessing.util.spawnv_passfds`",
        calls("multiprocessing.util", "spawnv_passfds", b"/usr/bin/touch", [b"touch", MARKER.encode()], []),
        "pickle",
    ),
    Sample(
        "submodule.pkl",
        "a submodule of asyncio",
        calls("asyncio.unix_events", "_UnixSubprocessTransport._start", None, SHELL, True, None, None, None, 0),
        "pickle",
    ),
    Sample(
        "collect-env.pkl", "`torch.utils.collect_env.run`", calls("torch.utils.collect_env", "run", SHELL), "pickle"
    ),
    Sample(
        "library.pkl",
        "the same by way of `torch.library`",
        calls("torch.library", "torch.utils.collect_env.run", SHELL),
        "pickle",
        "warning",
    ),
    Sample(
        "jit-ops.pkl",
        "`torch.jit.unsupported_tensor_ops.execWrapper`",
        calls("torch.jit.unsupported_tensor_ops", "execWrapper", CODE, {}, {}),
        "pickle",
    ),
    Sample(
        "re-export.pkl",
        "`Popen` by way of another module",
        calls("torch.utils.cpp_extension", "subprocess.Popen", SHELL.split()),
        "pickle",
    ),
    Sample(
        "runstring.pkl", "NumPy's `runstring`", calls("numpy.testing._private.utils", "runstring", CODE, {}), "pickle"
    ),
    Sample("f2py.pkl", "`numpy.f2py.crackfortran.myeval`", calls("numpy.f2py.crackfortran", "myeval", CODE), "pickle"),
    Sample("nobody-knows.pkl", "a class that nobody knows", calls("some_project.models", "Net"), "", "warning"),
)
"""Which names a payload may use: those that lists of dangerous names did not have."""

PLACES = (
    Sample(
        "protocol0.bin", "protocol 0, which begins with no mark, in a .bin", lambda: pickle.dumps(Calls(), 0), "pickle"
    ),
    Sample("no-suffix", "a pickle without a suffix", raw(PROGRAM), "pickle"),
    Sample("lies.safetensors", "a pickle called .safetensors", raw(PROGRAM), "pickle"),
    Sample("config.json", "a pickle called .json", raw(PROGRAM), "pickle"),
    Sample("rng_state.pth", "a random state", archives.in_torch_file(PROGRAM), "torch"),
    Sample("array.npy", "a NumPy array of objects", _array, "numpy"),
    Sample("gzipped.pkl.gz", "a pickle in gzip", lambda: gzip.compress(PROGRAM, mtime=0), "gzip"),
    Sample("seven.pt", "a 7z archive, which torch does not load", archives.seven_zip),
    Sample("legacy-magic.pt", "in the first of a legacy file's five pickles", archives.legacy(0), "torch"),
    Sample("legacy-protocol.pt", "in the second of them", archives.legacy(1), "torch"),
    Sample("legacy-system.pt", "in the third", archives.legacy(2), "torch"),
    Sample("legacy-object.pt", "in the fourth", archives.legacy(3), "torch"),
    Sample("legacy-keys.pt", "in the last", archives.legacy(4), "torch"),
    Sample("tar.pt", "torch's tar format", archives.tarred, "torch"),
    Sample(
        "deflated.pt",
        "a compressed data.pkl",
        lambda: archives.torch_file(PROGRAM, method=zipfile.ZIP_DEFLATED),
        "torch",
    ),
    Sample(
        "extra.pt",
        "a further entry beside a harmless data.pkl",
        lambda: archives.torch_file(HARMLESS, ("extra.pkl", PROGRAM)),
    ),
    Sample("capitals.pt", "DATA.PKL, which torch takes for data.pkl", archives.capitals, "torch"),
    Sample("doubled.pt", "data.pkl twice", archives.doubled, "torch"),
    Sample("doubled-case.pt", "data.pkl twice, in upper and lower case", archives.doubled_in_capitals, "torch"),
    Sample("renamed.pt", "the entry's own header has another name", archives.renamed, "torch"),
    Sample("flagged.pt", "the entry's own header says encrypted", archives.flagged, "torch"),
    Sample("checksum.pt", "a wrong checksum", archives.bad_checksum, "torch"),
    Sample(
        "inside.pt", "data.pkl within the bytes of a storage, behind a harmless one", archives.inside_a_storage, "torch"
    ),
    Sample("unlisted.pt", "a harmless data.pkl that the directory does not list", archives.unlisted, "torch"),
    Sample("trailing.pt", "4,000 bytes behind the archive", archives.trailing, "torch"),
    Sample("behind.pt", "a second end record behind the archive", archives.second_end, "torch"),
)
"""Where a payload may lie."""

EXHAUSTING = (
    Sample("memory.pkl", "nine bytes that take 16 GB", raw(b"\x80\x02Nr\xff\xff\xff\x7f.")),
    Sample("doubling.pkl", "a value that unfolds to 2^64 parts", _doubling(b".")),
    Sample("hash.pkl", "the same as a key of a dictionary", _doubling(b"q\xff0}h\xffNs.")),
    Sample("deep.pkl", "200,000 lists in each other", raw(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".")),
    Sample(
        "bomb.pt",
        "a data.pkl that unpacks to 300 MB",
        lambda: archives.torch_file(
            b"\x80\x02B" + struct.pack("<I", 300 << 20) + bytes(300 << 20) + b".", method=zipfile.ZIP_DEFLATED
        ),
    ),
)
"""What takes a reader's memory or time."""

HIDDEN = (
    Sample(
        "stop.pkl", "a pickle behind the end of a harmless one, with bytes between", raw(HARMLESS + b"\0\0" + PROGRAM)
    ),
    Sample("stop.pt", "the same in data.pkl", archives.in_torch_file(HARMLESS + PROGRAM)),
    Sample("tail.safetensors", "a pickle behind the last tensor", _safetensors({}, behind=PROGRAM)),
    Sample("padding.safetensors", "two megabytes of blanks in the header", _safetensors({}, padding=2_000_000)),
    Sample("twice.safetensors", "one tensor listed twice", _named_twice),
    Sample(
        "metadata.safetensors",
        "two megabytes in the header's metadata",
        _safetensors({"notes": "A" * 2_000_000}),
        "",
        "",
    ),
)
"""What no loader runs, and nobody sees."""

HOSTILE = WRITTEN + NAMES + PLACES + EXHAUSTING + HIDDEN
