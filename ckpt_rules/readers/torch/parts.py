"""Files by `torch.save` that lie one after the other in one file, as torch.distributed.checkpoint writes them."""

from __future__ import annotations

from ckpt_rules.facts.tensors import Archive, ReadProblem, TorchFile
from ckpt_rules.readers.budget import Budget, LimitError
from ckpt_rules.readers.pickle.enclosed import Memory, Window
from ckpt_rules.readers.torch.file import read_torch_file
from ckpt_rules.readers.zip.directory import read_archive
from ckpt_rules.storage import Source

MAX_KEPT_NBYTES = 64 << 10


def read_torch_parts(
    source: Source, path: str, spans: tuple[tuple[int, int], ...], budget: Budget
) -> tuple[TorchFile, ...]:
    """What the parts of a file hold; those that are equal, of which optimizers make thousands, are read once."""
    small: dict[bytes, TorchFile] = {}
    found = []
    for start, nbytes in spans:
        if nbytes > MAX_KEPT_NBYTES:
            found.append(read_torch_file(Window(source, start, nbytes), path, budget))
            continue
        raw = source.read(start, nbytes)
        if raw not in small and len(small) >= budget.limits.parts:
            limit = LimitError.past(
                "parts", f"the file holds more than {budget.limits.parts:,} different objects", start
            )
            unread = ReadProblem(limit.code, limit.reason, start)
            found.append(TorchFile(path, nbytes, "unknown", None, readable=False, problems=(unread,)))
            continue
        if raw not in small:
            small[raw] = read_torch_file(Memory(raw), path, budget)
        found.append(small[raw])
    return tuple(found)


def read_archive_parts(
    source: Source, path: str, spans: tuple[tuple[int, int], ...], budget: Budget
) -> tuple[Archive, ...]:
    """The entries of zip archives that lie in a file; offsets count from the start of each."""
    return tuple(read_archive(Window(source, start, nbytes), path, budget) for start, nbytes in spans)
