"""Files that `torch.save` wrote, and what goes by their names, read without running any of it."""

from __future__ import annotations

from ckpt_rules.facts.tensors import TorchFile
from ckpt_rules.readers import torch_legacy
from ckpt_rules.readers.damage import ProblemLog
from ckpt_rules.readers.pickle_machine import Unpickled, unpickle
from ckpt_rules.readers.plain_objects import PlainBuilder
from ckpt_rules.readers.torch_zip import read_zip
from ckpt_rules.readers.windows import unpickle_window
from ckpt_rules.storage import Source

MAX_PICKLES = 1_000
_USTAR, _USTAR_AT = b"ustar", 257


def read_torch_file(source: Source, path: str) -> TorchFile:
    """What a file holds that is named or looks like one of torch's."""
    head = source.read(0, _USTAR_AT + len(_USTAR))
    if head.startswith(b"PK"):
        return read_zip(source, path)
    if head[_USTAR_AT:] == _USTAR:
        return _unknown(source, path, "the file is a tar archive, which torch.load has refused since torch 2.6")
    _, pickles = unpickle_window(source, 0, _first)
    if pickles[0].value == torch_legacy.MAGIC:
        return torch_legacy.read_legacy(source, path)
    return _read_bare(source, path, head)


def _first(raw: bytes) -> list[Unpickled]:
    return [unpickle(raw, PlainBuilder(), stream="object")]


def _read_bare(source: Source, path: str, head: bytes) -> TorchFile:
    """A pickle by `pickle.dump`, or several: a loader runs the first, another program may run them all."""
    _, pickles = unpickle_window(source, 0, _all)
    first = pickles[0]
    if not first.readable and not head.startswith(b"\x80"):
        message = "the file is neither a zip archive nor a pickle, so torch.save did not write it"
        return _unknown(source, path, message, first)
    log = ProblemLog()
    log.extend(first.problems)
    if first.readable:
        if not path.lower().endswith((".pkl", ".pickle")):
            wrote = "pickle.dump wrote it, and torch.load refuses it"
            log.add("not-torch", f"the file is a bare pickle without torch's magic number: {wrote}", 0)
        if first.end < source.size:
            message = f"{source.size - first.end:,} bytes follow the end of the pickle"
            log.add("trailing-data", message, first.end, fatal=False)
    globals_ = tuple(g for pickle in pickles for g in pickle.globals)
    return TorchFile(path, source.size, "pickle", first.value, globals_, first.protocol, first.readable, log.all())


def _all(raw: bytes) -> list[Unpickled]:
    pickles = _first(raw)
    while pickles[-1].readable and pickles[-1].end < len(raw) and len(pickles) < MAX_PICKLES:
        stream = f"object {len(pickles) + 1}"
        pickles.append(unpickle(raw, PlainBuilder(), stream=stream, start=pickles[-1].end))
    return pickles


def _unknown(source: Source, path: str, message: str, pickle: Unpickled | None = None) -> TorchFile:
    log = ProblemLog()
    log.add("not-torch", message, 0)
    globals_ = pickle.globals if pickle else ()
    return TorchFile(path, source.size, "unknown", None, globals_, readable=False, problems=log.all())
