"""pickle/unsafe-global and pickle/unknown-global: what a load would import, and call."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from pydantic import Field

from ckpt_rules import Checkpoint, GlobalRef, Place, Problem, Rule, Severity
from ckpt_rules_safety.files import matches, pickled_files
from ckpt_rules_safety.known_globals import is_known, is_only_filled
from ckpt_rules_safety.unsafe_globals import danger

_SHOWN = 5


class UnsafeGlobal(Rule):
    """A pickle imports something that runs code or touches the system.

    ## What it checks
    Every name that any pickle in the checkpoint imports, in files of any name: in torch files of both formats, bare
    pickles, one after the other, NumPy arrays of objects, tar archives, gzip files, the objects of distributed
    checkpoints, and in pickles inside of these. Names are compared as pairs of module and name, after Python 2's have
    become Python 3's, and attributes reached through dots or `getattr` are checked too. Nothing is imported or run to
    find out.

    ## Why it matters
    A pickle is a program. `torch.load(weights_only=False)`, `pickle.load` and everything built on them run it while
    loading, with your permissions, before any weight is there.

    ## How to repair
    Do not load the file. Find out where it comes from; if you need its weights, take them as safetensors from a source that
    you trust. Where your own team saves such an object on purpose, name it in the option `allow`.
    """

    id = "pickle/unsafe-global"
    tags = frozenset({"safety", "load"})

    allow: tuple[str, ...] = Field(default=(), description="Names that are not a finding, as `module.name`; exact.")

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each name in a file."""
        for file in pickled_files(checkpoint):
            for ref in _first_of_each(file.globals):
                what = None if ref.dotted in self.allow else danger(ref.module, ref.name)
                if what:
                    yield Problem(
                        message=f"the pickle {ref.stream} imports {ref.dotted} at byte {ref.offset:,}, which {what}",
                        place=Place(path=file.path, key=ref.stream),
                        help="do not load it; find out who wrote it, and take the weights from a source that you trust",
                        data={"global": ref.dotted, "does": what, "byte": ref.offset},
                    )


class UnknownGlobal(Rule):
    """A pickle imports names that are not known from training checkpoints.

    ## What it checks
    The same names as `pickle/unsafe-global`. Known are those on torch's own weights-only list, and what transformers,
    accelerate, sentence-transformers, TRL, Lightning, DeepSpeed, Megatron, mmengine, ultralytics, NumPy, OmegaConf,
    scikit-learn and the standard library's plain types really store. Whatever is neither known nor on the list of what is
    dangerous is reported here; as information where it is a network's class, filled as torch fills a module, or a class of the script itself in a
    file that the trainer does not read again, such as `training_args.bin`, in which scripts keep their arguments. And classes that are
    known, but called with arguments, where real files only fill an instance: their code then runs on what the file says.

    ## Why it matters
    A class of your own project is harmless but ties the checkpoint to that version of the code; a class that you do not
    know may do anything when it is loaded. torch >= 2.6 refuses both by default.

    ## How to repair
    Save plain values instead of objects. Name classes of your own in the option `allow`, in a ruleset of the team:
    `pickle/unknown-global: {options: {allow: ["our_project.*"]}}`.
    """

    id = "pickle/unknown-global"
    severity = Severity.WARNING
    tags = frozenset({"safety", "load"})

    allow: tuple[str, ...] = Field(
        default=(), description="Further names that are known, as `module.name`; `*` stands for any part of a name."
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        for file in pickled_files(checkpoint):
            first = list(_first_of_each(file.globals))
            if unknown := [ref for ref in first if self._is_unknown(ref)]:
                is_unread = matches(file.path, checkpoint.layout.unread)
                is_harmless = all(ref.network or (is_unread and _is_own_arguments(ref)) for ref in unknown)
                yield _unknown(file.path, unknown, is_harmless=is_harmless)
            for ref in first:
                if ref.given and is_only_filled(ref.module, ref.name) and not self._is_allowed(ref):
                    yield _called(file.path, ref)

    def _is_unknown(self, ref: GlobalRef) -> bool:
        if is_known(ref.module, ref.name) or danger(ref.module, ref.name):
            return False
        return not self._is_allowed(ref)

    def _is_allowed(self, ref: GlobalRef) -> bool:
        return any(fnmatchcase(ref.dotted, glob) for glob in self.allow)


def _unknown(path: str, unknown: list[GlobalRef], *, is_harmless: bool) -> Problem:
    names = [ref.dotted for ref in unknown]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
    first = unknown[0]
    are = "is a name that is" if len(names) == 1 else "are names that are"
    return Problem(
        message=f"{shown} {are} not known from training checkpoints; first imported at byte {first.offset:,} of "
        f"{first.stream}",
        place=Place(path=path, key=first.stream),
        help="if they are your own, name them in the rule's option `allow`; if not, do not load the file",
        data={"globals": names},
        severity=Severity.INFO if is_harmless else None,
    )


def _is_own_arguments(ref: GlobalRef) -> bool:
    """Whether it is the class of a script's own arguments, as transformers' `HfArgumentParser` has the script define it."""
    return ref.module == "__main__" and not ref.given


def _called(path: str, ref: GlobalRef) -> Problem:
    return Problem(
        message=f"the pickle {ref.stream} calls {ref.dotted} with arguments, first imported at byte {ref.offset:,}; "
        "files written by a trainer only restore the attributes of an instance of it",
        place=Place(path=path, key=ref.stream),
        help="do not load the file unless you know who wrote it: the code of the class runs on what the file says",
        data={"called": ref.dotted, "byte": ref.offset},
    )


def _first_of_each(globals_: tuple[GlobalRef, ...]) -> Iterator[GlobalRef]:
    """Each name once, as called with arguments where any of the pickles does so."""
    first: dict[tuple[str, str], GlobalRef] = {}
    for ref in globals_:
        known = first.setdefault((ref.module, ref.name), ref)
        if ref.given and not known.given:
            first[ref.module, ref.name] = known._replace(given=True)
    yield from first.values()
