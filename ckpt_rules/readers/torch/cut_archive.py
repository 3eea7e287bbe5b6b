"""A zip file whose directory is lost: what can still be told from its start, where torch.save writes the pickle."""

from __future__ import annotations

from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.damage import ProblemLog
from ckpt_rules.readers.pickle.machine import Unpickled, unpickle
from ckpt_rules.readers.torch.objects import Stored, TorchBuilder
from ckpt_rules.readers.windows import unpickle_window
from ckpt_rules.readers.zip.directory import LOCAL, LOCAL_SIGNATURE
from ckpt_rules.storage import Source

MAX_NAME_NBYTES = 1_024


def read_cut_zip(source: Source, log: ProblemLog, budget: Budget) -> Unpickled | None:
    """What the pickle asks for, its value left out; the log says how many bytes its tensors would take."""
    head = source.read(0, LOCAL.size + MAX_NAME_NBYTES)
    if len(head) < LOCAL.size or not head.startswith(LOCAL_SIGNATURE):
        return None
    *_, method, _, _, _, _, _, name_n, extra_n = LOCAL.unpack_from(head)
    name = head[LOCAL.size : LOCAL.size + name_n].decode("utf-8", "replace")
    if method or not name.lower().endswith("/data.pkl"):
        return None
    start = LOCAL.size + name_n + extra_n
    # Every storage is taken to be there: one problem is enough.
    builder = TorchBuilder(lambda _: Stored(None, -1), source.read, ProblemLog(), limits=budget.limits)
    _, [result] = unpickle_window(
        source, start, budget, lambda raw: [unpickle(raw, builder, stream=name, budget=budget, base=start)]
    )
    if result.readable:
        nbytes = sum(storage.nbytes for storage in builder.storages.values())
        message = f"its pickle names {len(builder.storages):,} storages of {nbytes:,} bytes in all; the file has {source.size:,}"
        log.add("cut-short", message, source.size, name, fatal=False)
    return Unpickled(None, result.globals, result.protocol, result.end, readable=False)
