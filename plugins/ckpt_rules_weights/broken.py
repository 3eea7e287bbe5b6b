"""Files whose bytes do not follow their format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckpt_rules import Checkpoint, Place, Problem, ReadProblem, Rule, Severity, TorchFile

_SHOWN = 20
_AGAIN = "copy the file again if the original is intact, or resume from an earlier save"


def _problems(
    path: str, found: Sequence[ReadProblem], *, tensor: bool, severity: Severity | None = None
) -> Iterator[Problem]:
    fatal = [p for p in found if p.fatal]
    for number, p in enumerate(fatal[:_SHOWN]):
        last = number == _SHOWN - 1 and len(fatal) > _SHOWN
        more = f" (and {len(fatal) - _SHOWN:,} more problems in this file)" if last else ""
        yield Problem(
            message=p.message + more,
            place=Place(path=path, offset=p.offset, **{"tensor" if tensor else "key": p.where}),
            help=_AGAIN,
            severity=severity,
            data={"code": p.code},
        )


_OTHERS = frozenset({"limit", "ambiguous"})


class BrokenSafetensors(Rule):
    """A safetensors file does not follow its format.

    ## What it checks
    The header's length, its JSON, every dtype, shape and offset: tensors may not overlap, leave holes or extend past
    the end, and the file must be exactly as long as its header says. These are the checks of the safetensors library
    itself.

    ## Why it matters
    A full disk, an interrupted copy or download cut the file short, and the loader refuses it.

    ## How to repair
    Copy the file again if the original is intact; otherwise resume from an earlier save.
    """

    id = "weights/broken-safetensors"
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each fault, 20 at the most in one file."""
        for entry in checkpoint.files.of_format("safetensors"):
            yield from _problems(entry.path, checkpoint.files.safetensors(entry.path).problems, tensor=True)


class BrokenTorchFile(Rule):
    """A file written by torch.save is damaged.

    ## What it checks
    The zip directory and the header of each entry, the pickle, and that every storage is there with the size that the
    pickle declares; in files from before torch 1.6, the five pickles and the storages after them. Nothing in the file
    is executed, and no tensor is read.

    ## Why it matters
    torch.save writes in place: a job killed while saving leaves half a file under the final name. torch then fails with
    `failed finding central directory`.

    ## How to repair
    Copy the file again if the original is intact; otherwise resume from an earlier save.
    """

    id = "weights/broken-torch-file"
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each fault, 20 at the most in one file; what `pickle/limit` and `zip/ambiguous` report is left out."""
        for entry in checkpoint.files.of_format("torch"):
            file = checkpoint.files.torch_file(entry.path)
            if checkpoint.match is None and _is_whole_pickle(file):
                continue  # nobody knows that torch.load is to read it
            faults = tuple(p for p in file.problems if p.code not in _OTHERS)
            severity = checkpoint.layout.severity_of_damage(entry.path)
            yield from _problems(entry.path, faults, tensor=False, severity=severity)


def _is_whole_pickle(file: TorchFile) -> bool:
    return file.container == "pickle" and file.readable and {p.code for p in file.problems} <= {"not-torch"}
