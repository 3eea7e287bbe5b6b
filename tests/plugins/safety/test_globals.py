"""pickle/unsafe-global and pickle/unknown-global: what a load would import, wherever it is asked for."""

from __future__ import annotations

import argparse
import builtins
import gzip
import io
import os
import pathlib
import pickle
import random
import subprocess
import tarfile

import numpy as np
import pytest
import torch

from ckpt_rules_safety.globals import UnknownGlobal, UnsafeGlobal
from ckpt_rules_safety.known_globals import CLASSES, KNOWN, is_known
from ckpt_rules_safety.torch_globals import ALLOWED_PAIRS
from ckpt_rules_safety.unsafe_globals import danger, listed_danger
from tests.plugins.safety.hostile import Calls, asks_for, evil, saved, text, with_pickle

TORCHSCRIPT = ("build_boollist", "build_doublelist", "build_intlist", "build_tensorlist", "restore_type_tag")
SYSTEM = {"posix.system", "os.system", "nt.system"}


class Project:
    """A class of somebody's own."""


def seen(result):
    return {f.data["global"] for f in result.findings}


# Where it may lie


def legacy_with(program, position):
    """A file from before torch 1.6 in which one of the five pickles is this one."""
    streams = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, [])]
    streams[position] = program
    return b"".join(streams)


def tarred(program):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = len(program) if name == "pickle" else 0
            archive.addfile(info, io.BytesIO(program))
    return stream.getvalue()


def object_array():
    np.save(stream := io.BytesIO(), np.array([evil()], dtype=object), allow_pickle=True)
    return stream.getvalue()


def object_arrays():
    np.savez(stream := io.BytesIO(), a=np.array([evil()], dtype=object))
    return stream.getvalue()


PAYLOAD = b"cos\nsystem\n" + text("true") + b"\x85R"
PROGRAM = b"\x80\x02" + PAYLOAD + b"."
PLACES = {
    "a torch file": ("model.pt", saved({"a": evil()})),
    "a legacy torch file": ("model.pt", saved({"a": evil()}, legacy=True)),
    "its magic number": ("model.pt", legacy_with(PROGRAM, 0)),
    "its system information": ("model.pt", legacy_with(PROGRAM, 2)),
    "its storage keys": ("model.pt", legacy_with(PROGRAM, 4)),
    "a bare pickle": ("random_states_0.pkl", pickle.dumps(evil())),
    "protocol 0": ("state.pkl", pickle.dumps(evil(), 0)),
    "protocol 0 in a .bin": ("optimizer.bin", pickle.dumps(evil(), 0)),
    "a second pickle": ("state.pkl", pickle.dumps([1]) + pickle.dumps(evil())),
    "no suffix": ("latest", pickle.dumps(evil())),
    "a name that lies": ("model.safetensors", pickle.dumps(evil())),
    "a text that is none": ("notes.txt", pickle.dumps(evil())),
    "the metadata of a distributed checkpoint": (".metadata", pickle.dumps(evil())),
    "a tar archive": ("model.pth", tarred(PROGRAM)),
    "a gzip file": ("model.pkl.gz", gzip.compress(pickle.dumps(evil()))),
    "an array of objects": ("data.npy", object_array()),
    "arrays of objects": ("data.npz", object_arrays()),
    "bytes in a pickle": ("state.pkl", pickle.dumps({"blob": pickle.dumps(evil())})),
    "bytes in a torch file": ("state.pt", saved({"blob": pickle.dumps(evil())})),
    "a torch file in a pickle": ("state.pkl", pickle.dumps(saved({"a": evil()}))),
    "bytes that torch loads": (
        "state.pkl",
        b"\x80\x03ctorch.storage\n_load_from_bytes\nC" + bytes([len(PROGRAM)]) + PROGRAM + b"\x85R.",
    ),
    "bytes of protocol 0 that torch loads": (
        "state.pkl",
        b"\x80\x03ctorch.storage\n_load_from_bytes\nC\x15cos\nsystem\n(S'id'\ntR.\x85R.",
    ),
    "a further entry": ("model.pt", with_pickle(b"\x80\x02}.", **{"extra.pkl": PROGRAM})),
    "a further entry with another name": ("model.pt", with_pickle(b"\x80\x02}.", thing=PROGRAM)),
    "a compressed entry": ("model.pt", with_pickle(PROGRAM, method=8)),
    "upper case": ("model.pt", with_pickle(PROGRAM).replace(b"data.pkl", b"DATA.PKL")),
}


@pytest.mark.parametrize("place", PLACES)
def test_it_is_found_in(place, put, run_rule):
    name, data = PLACES[place]
    result = run_rule(UnsafeGlobal(), put(name, data))
    assert seen(result) & SYSTEM
    assert {f.place.path for f in result.findings} == {name}
    assert {f.data["does"] for f in result.findings} == {"runs commands"}
    assert {f.severity.value for f in result.findings} == {"error"}


def test_stream_and_byte_are_named(put, run_rule):
    data = with_pickle(b"\x80\x02}" + text("a") + PAYLOAD + b"s.")
    run_rule(UnsafeGlobal(), put("model.pt", data)).assert_one(
        path="model.pt",
        key="archive/data.pkl",
        severity="error",
        message="the pickle archive/data.pkl imports os.system at byte 9, which runs commands",
    )


# How it may be written

WAYS = {
    "GLOBAL": b"\x80\x02" + PAYLOAD + b".",
    "names of Python 2": b"\x80\x02c__builtin__\neval\n" + text("1") + b"\x85R.",
    "INST": b"(S'true'\nios\nsystem\n.",
    "OBJ": b"\x80\x02(cos\nsystem\n" + text("true") + b"o.",
    "NEWOBJ": b"\x80\x02cos\nsystem\n" + text("true") + b"\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04cos\nsystem\n" + text("true") + b"\x85}\x92.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "text of Python 2": b"\x80\x04U\x02osU\x06system\x93\x8c\x04true\x85R.",
    "names from the memo": b"\x80\x04\x8c\x06system\x94\x8c\x02os\x940h\x01h\x00\x93\x8c\x04true\x85R.",
    "names from PUT": b"\x80\x04\x8c\x06systemq\x05\x8c\x02osh\x05\x93\x8c\x04true\x85R.",
    "the result is dropped": b"\x80\x02" + PAYLOAD + b"0}.",
    "a key of a dictionary": b"\x80\x02}" + PAYLOAD + b"Ns.",
    "it breaks afterwards": b"\x80\x02" + PAYLOAD + b"\xff\xff",
    "it is cut short": b"\x80\x02" + PAYLOAD + b"X\xff\xff",
    "nothing is called": asks_for(("os", "system")),
    "a dotted name": b"\x80\x04\x8c\x07pathlib\x8c\x09os.system\x93\x8c\x04true\x85R.",
    "a module under another": b"\x80\x04\x8c\x07pathlib\x8c\x02os\x93.",
    "a method of it": b"\x80\x04\x8c\x08builtins\x8c\x0deval.__call__\x93.",
    "its globals": b"\x80\x04\x8c\x0bcollections\x8c\x1dOrderedDict.fromkeys.__self__\x93.",
    "getattr on a module": b"\x80\x02cbuiltins\ngetattr\n(cpathlib\nos\n" + text("system") + b"tR" + text("x") + b"\x85R.",
    "getattr on a result": b"\x80\x02cbuiltins\ngetattr\n(cpathlib\nPath\n)R" + text("write_text") + b"tR.",
    "getattr passed on": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\ngetattr\nN)}tR.",
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_it_is_found_as(way, put, run_rule):
    result = run_rule(UnsafeGlobal(), put("state.pkl", WAYS[way]))
    assert result.findings, result
    assert {f.place.path for f in result.findings} == {"state.pkl"}


def test_nothing_of_it_is_run(put, run_rule, tmp_path):
    marker = tmp_path / "ran"
    for number, data in enumerate(
        (saved(Calls(os.system, f"touch {marker}")), pickle.dumps(Calls(builtins.exec, f"open({str(marker)!r}, 'w')")))
    ):
        assert run_rule(UnsafeGlobal(), put(f"{number}.pt", data)).findings
    assert not marker.exists()


# Which names

GADGETS = [
    ("pip", "main"), ("pip._internal", "main"), ("timeit", "timeit"), ("runpy", "run_path"), ("pdb", "run"),
    ("bdb", "Bdb.run"), ("pydoc", "pipepager"), ("pty", "spawn"), ("ctypes", "CDLL"), ("cProfile", "run"),
    ("profile", "Profile.run"), ("idlelib.pyshell", "ModifiedInterpreter.runcode"), ("lib2to3.pgen2.grammar", "Grammar.load"),
    ("ensurepip", "_run_pip"), ("doctest", "debug_script"), ("code", "InteractiveInterpreter.runcode"),
    ("torch.utils.collect_env", "run"), ("torch.utils.bottleneck.__main__", "run_cprofile"),
    ("torch._dynamo.guards", "GuardBuilder.get"), ("torch.jit.unsupported_tensor_ops", "execWrapper"),
    ("numpy.f2py.crackfortran", "getlincoef"), ("numpy.testing._private.utils", "runstring"),
    ("logging", "FileHandler"), ("logging.config", "dictConfig"), ("io", "FileIO"), ("_io", "FileIO"),
    ("urllib.request", "urlopen"), ("types", "CodeType"), ("types", "FunctionType"), ("uuid", "_get_command_stdout"),
    ("_osx_support", "_read_output"), ("_aix_support", "_read_cmd_output"), ("imaplib", "IMAP4_stream"),
    ("pkgutil", "resolve_name"), ("importlib", "import_module"), ("asyncio.unix_events", "_UnixSubprocessTransport._start"),
    ("operator", "attrgetter"), ("functools", "reduce"), ("subprocess", "Popen"), ("multiprocessing.util", "spawnv_passfds"),
    ("shutil", "rmtree"), ("socket", "create_connection"), ("torch", "load"), ("torch.hub", "load"), ("torch.jit", "load"),
    ("pickle", "loads"), ("joblib", "load"), ("numpy", "load"), ("builtins", "getattr.__call__"), ("sys", "modules"),
    ("accelerate.utils.launch", "Popen"), ("numpy", "__builtins__"), ("webbrowser", "open"), ("builtins", "open"),
    ("torch.fx.graph_module", "reduce_graph_module"), ("code", "interact"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), GADGETS)
def test_what_scanners_have_missed_is_an_error(module, name):
    assert not is_known(module, name)
    assert danger(module, name)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "_utils"),
        ("code.models", "Net"),
        ("test.config", "Config"),
        ("functools", "partial"),
        ("numpy", "size"),
    ],
)
def test_what_nobody_knows_is_a_warning(module, name, put, run_rule):
    assert not danger(module, name)
    path = put("state.pkl", asks_for((module, name)))
    run_rule(UnsafeGlobal(), path).assert_passed()
    run_rule(UnknownGlobal(), path).assert_one(
        path="state.pkl",
        key="object",
        severity="warning",
        message=f"{module}.{name} is a name that is not known from training checkpoints; first imported at byte 4 of object",
        data={"globals": [f"{module}.{name}"]},
    )


def test_a_dot_in_a_name_is_no_dot_in_a_module(put, run_rule):
    path = put("state.pkl", b"\x80\x04\x8c\x00\x8c\x17collections.OrderedDict\x93.")
    assert seen_unknown(run_rule(UnknownGlobal(), path)) == [".collections.OrderedDict"]


def seen_unknown(result):
    return [name for f in result.findings for name in f.data["globals"]]


def test_the_lists_do_not_contradict_each_other():
    exceptions = {(m, n) for m, n in KNOWN | ALLOWED_PAIRS if listed_danger(m, n)}
    assert exceptions == {
        ("joblib.numpy_pickle", "NumpyArrayWrapper"),
        ("signal", "Signals"),
        ("torch._dynamo.decorators", "_DimRange"),
        ("torch.serialization", "_get_layout"),
        *(("torch.jit._pickle", n) for n in TORCHSCRIPT),
    }
    assert [m for m in CLASSES if listed_danger(m, "Anything")] == []


def test_all_of_torchs_own_list_is_known():
    from torch._weights_only_unpickler import _get_allowed_globals

    missing = {n for n in _get_allowed_globals() if not is_known(*n.rpartition(".")[::2])}
    assert missing == set()


# What real files ask for


def rng():
    return {
        "python": random.getstate(),
        "numpy": np.random.RandomState(0).get_state(),
        "torch": torch.get_rng_state(),
        "generator": np.random.default_rng(0).bit_generator.state,
    }


REAL = {
    "model": lambda: torch.nn.Linear(2, 2).state_dict(),
    "optimizer": lambda: torch.optim.AdamW(torch.nn.Linear(2, 2).parameters()).state_dict(),
    "rng": rng,
    "arguments": lambda: argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/x")),
    "metrics": lambda: {"loss": np.float32(1.5), "array": np.arange(3), "best": np.float64(2)},
    "whole network": lambda: torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.BatchNorm1d(2)),
    "generators": lambda: [np.random.default_rng(0), np.random.RandomState(0), random.Random(0)],
    "low precision": lambda: {
        "a": torch.zeros(2, dtype=torch.float8_e4m3fn),
        "b": torch.zeros(2, dtype=torch.bfloat16),
    },
    "sparse": lambda: torch.eye(3).to_sparse(),
    "parameters": lambda: [torch.nn.Parameter(torch.ones(2)), torch.nn.Buffer(torch.ones(2))],
    "sizes": lambda: [torch.Size([1]), torch.device("cpu"), torch.float16, slice(1, 2), frozenset({1}), range(3)],
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("content", REAL)
def test_real_files_yield_nothing(content, legacy, put, run_rule):
    if content == "low precision" and legacy:
        pytest.skip("torch 2.13 can't save this dtype in the old format")
    path = put("state.pt", saved(REAL[content](), legacy=legacy))
    run_rule(UnsafeGlobal(), path).assert_passed()
    run_rule(UnknownGlobal(), path).assert_passed()


def test_getattr_on_the_classes_that_mmengine_keeps_is_known(put, run_rule):
    history = b"cmmengine.logging.history_buffer\nHistoryBuffer\n"
    path = put("epoch_1.pth", with_pickle(b"\x80\x02c__builtin__\ngetattr\n(" + history + text("mean") + b"tR."))
    run_rule(UnsafeGlobal(), path).assert_passed()
    run_rule(UnknownGlobal(), path).assert_passed()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_torchscript_file_brings_its_own_classes(tmp_path, run_rule):
    (tmp_path / "ck").mkdir()
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "ck" / "model.pt"))
    run_rule(UnsafeGlobal(), tmp_path / "ck").assert_passed()
    run_rule(UnknownGlobal(), tmp_path / "ck").assert_passed()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_the_metadata_of_a_distributed_checkpoint(tmp_path, run_rule):
    import torch.distributed.checkpoint as dcp

    dcp.save({"w": torch.ones(4), "step": 3}, checkpoint_id=str(tmp_path / "ck"), no_dist=True)
    run_rule(UnsafeGlobal(), tmp_path / "ck").assert_passed()
    run_rule(UnknownGlobal(), tmp_path / "ck").assert_passed()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_an_object_in_a_distributed_checkpoint(tmp_path, run_rule):
    import torch.distributed.checkpoint as dcp

    state = {"w": torch.ones(4), "args": evil(), **{f"lr{i}": 0.1 for i in range(20)}}
    dcp.save(state, checkpoint_id=str(tmp_path / "ck"), no_dist=True)
    finding = run_rule(UnsafeGlobal(), tmp_path / "ck").assert_one(path="__0_0.distcp", key="args: archive/data.pkl")
    assert finding.data == {"global": "posix.system", "does": "runs commands", "byte": 2}


@pytest.mark.parametrize("place", [None, "elsewhere.distcp", "../../outside"])
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_metadata_that_points_nowhere_leads_nowhere(place, tmp_path, run_rule):
    import torch.distributed.checkpoint as dcp

    dcp.save({"args": evil()}, checkpoint_id=str(tmp_path / "ck"), no_dist=True)
    metadata = tmp_path / "ck" / ".metadata"
    if place is None:
        metadata.write_bytes(b"\x80\x02}.")
    else:
        old = b"\x8c\x0c__0_0.distcp"
        assert old in metadata.read_bytes()
        new = b"\x8c" + bytes([len(place)]) + place.encode()
        data = metadata.read_bytes().replace(old, new)
        frame = data.index(b"\x95")
        length = int.from_bytes(data[frame + 1 : frame + 9], "little") + len(new) - len(old)
        metadata.write_bytes(data[: frame + 1] + length.to_bytes(8, "little") + data[frame + 9 :])
    run_rule(UnsafeGlobal(), tmp_path / "ck").assert_passed()


# What a team lets through


def test_names_of_the_teams_own(put, run_rule):
    path = put("state.pt", saved({"p": Project(), "q": subprocess.CompletedProcess}))
    project = f"{Project.__module__}.Project"
    assert seen_unknown(run_rule(UnknownGlobal(), path)) == [project]
    run_rule(UnknownGlobal(allow=(f"{Project.__module__}.*",)), path).assert_passed()
    assert seen(run_rule(UnsafeGlobal(), path)) == {"subprocess.CompletedProcess"}
    run_rule(UnsafeGlobal(allow=("subprocess.CompletedProcess",)), path).assert_passed()
