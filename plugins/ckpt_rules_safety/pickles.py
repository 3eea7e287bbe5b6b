"""pickle/nested, pickle/malformed and pickle/limit: pickles that are not as a trainer writes them."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, Place, Problem, ReadProblem, Rule, Severity, TorchFile
from ckpt_rules_safety.files import is_torch_named, pickled_files
from ckpt_rules_safety.unsafe_globals import danger

_TRAILING, _LIMIT, _PACKED = "trailing-data", "limit", "packed"


class NestedPickle(Rule):
    """A pickle or an archive is inside another pickle or archive.

    ## What it checks
    Bytes in pickles, and entries in torch's zip files that torch does not write, that are themselves a pickle, a torch
    file, a NumPy array or a gzip file, five levels deep. What they import is checked by `pickle/unsafe-global` like
    everything else. An error if one of them imports something that runs code.

    ## Why it matters
    A scanner that looks only at the outer pickle does not see the inner one. Old torch tensors inside of other objects,
    and objects kept as bytes, are harmless examples.

    ## How to repair
    Nothing needs to be done about plain data. Otherwise do not load the file.
    """

    id = "pickle/nested"
    severity = Severity.INFO
    tags = frozenset({"safety"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        for file in pickled_files(checkpoint):
            if file.nested:
                yield _nested(file)


def _nested(file: TorchFile) -> Problem:
    inner = [g for g in file.globals if " > " in g.stream]
    unsafe = [g for g in inner if danger(g.module, g.name)]
    count = "a pickle or archive is" if len(file.nested) == 1 else f"{len(file.nested):,} pickles or archives are"
    asks = f"; it imports {unsafe[0].dotted}" if unsafe else ""
    return Problem(
        message=f"{count} inside the file, in {file.nested[0]}{asks}",
        place=Place(path=file.path, key=file.nested[0]),
        help="do not load it" if unsafe else "save the object itself instead of its bytes, if the file is yours",
        severity=Severity.ERROR if unsafe else None,
        data={"nested": list(file.nested[:100]), "unsafe": [g.dotted for g in unsafe]},
    )


class MalformedPickle(Rule):
    """A pickle has data after its end, or is cut off.

    ## What it checks
    Bytes after the STOP of a pickle: further pickles, or anything else. Pickles that break, in files that are not torch
    files by their name (`weights/broken-torch-file` reports those).

    ## Why it matters
    A loader stops at the first STOP and does not see the rest; another program, or a scanner, reads on and sees another
    file. A pickle that breaks has already run everything before that point.

    ## How to repair
    Write the file again with the program that made it. If it comes from somebody else, do not load it.
    """

    id = "pickle/malformed"
    tags = frozenset({"safety", "load"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each fault of a pickle."""
        for file in pickled_files(checkpoint):
            for fault in file.problems:
                broken = fault.fatal and file.container == "pickle" and not is_torch_named(checkpoint, file.path)
                if fault.code == _TRAILING or (broken and fault.code not in (_LIMIT, "not-torch")):
                    yield _problem(file, fault, "write the file again from the program that owns it")


class PickleLimit(Rule):
    """A pickle or an archive is larger, or nested deeper, than the limits allow.

    ## What it checks
    Whether reading a file hit one of the `limits` of the ruleset: bytes, memory, opcodes, values, levels of nesting,
    entries. Real checkpoints stay below the defaults. As a warning, a pickle that is compressed in a way that is not
    unpacked here, such as zstd and lz4.

    ## Why it matters
    Some files are made to exhaust whoever reads them: 40 kB that unpack to gigabytes, tuples that double at each level,
    keys that all have one hash. A loader has no limits. What was not read was not checked.

    ## How to repair
    Do not load the file unless you know why it is so large. If you do, raise the limit that the message names.
    """

    id = "pickle/limit"
    tags = frozenset({"safety", "load"})
    former_ids = ("pickle/too-deep",)

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each limit that a file came to."""
        for file in pickled_files(checkpoint):
            for fault in file.problems:
                if fault.code == _LIMIT:
                    yield _problem(file, fault, "raise the limit if you trust the file")
                elif fault.code == _PACKED:
                    help_ = "unpack it and verify the result; do not load one from a source you do not trust"
                    yield _problem(file, fault, help_, Severity.WARNING)


def _problem(file: TorchFile, fault: ReadProblem, help_: str, severity: Severity | None = None) -> Problem:
    return Problem(
        message=fault.message,
        place=Place(path=file.path, key=fault.where, offset=fault.offset),
        help=help_,
        severity=severity,
        data={"code": fault.code},
    )
