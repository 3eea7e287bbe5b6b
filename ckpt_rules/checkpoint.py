"""One checkpoint: its files, its layout, and the table of facts, each computed when first asked for, and once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple, overload

from ckpt_rules import known_facts as known
from ckpt_rules.errors import FactUnavailable, LayoutFault
from ckpt_rules.fact import Fact
from ckpt_rules.facts.files import Listing, RootKind
from ckpt_rules.files import NO_DIRECTORY, Files
from ckpt_rules.limits import DEFAULT_LIMITS, Limits
from ckpt_rules.memo import Memo
from ckpt_rules.reading import Reading
from ckpt_rules.storage import Storage
from ckpt_rules.traits import NO_LAYOUT, LayoutTraits, Match

_FORMER = {
    "beside": "sibling", "files_in": "of_format", "head": "sniff", "look_again": "stat_now", "note": "small_text",
    "note_fault": "small_text_fault", "pieces": "byte_ranges",
} | {name: name for name in (
    "archive", "archive_parts", "budget", "contents", "distributed", "is_in_files", "is_one_file", "json", "metadata_files",
    "ocdbt", "read_errors", "root", "safetensors", "storage", "text", "torch_file", "torch_parts", "zstd_frames",
)}  # fmt: skip
"""What plugins may still ask a checkpoint for by its former name, and what it is called in `Files`."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Known(Generic[T]):
    """A fact as an attribute: `checkpoint.weights` is `checkpoint[WEIGHTS]`."""

    def __init__(self, fact: Fact[T]) -> None:
        self.fact = fact

    @overload
    def __get__(self, checkpoint: None, kind: type) -> Fact[T]: ...
    @overload
    def __get__(self, checkpoint: Checkpoint, kind: type) -> T: ...
    def __get__(self, checkpoint: Checkpoint | None, kind: type) -> Fact[T] | T:
        if checkpoint is None:
            return self.fact
        try:
            return checkpoint[self.fact]
        except AttributeError as error:  # Python would look for the attribute elsewhere, and say that there is none
            raise LayoutFault(checkpoint.layout.name, f"{self.fact.name} raised AttributeError: {error}") from error


class Checkpoint:
    """A checkpoint directory, opened once.

    files:         what lies there, and what each file holds
    layout:        who wrote it; match: how sure that is, None where nobody recognised it
    checkpoint[F]: a fact that layouts answer; those that come with ckpt-rules are attributes too
    fact(f, …):    any function of a checkpoint, remembered

    A fact that is not there, or can't be read, raises `FactUnavailable` for everybody who asks, and is computed once.

    reading:       how every byte is read, where that is asked for
    find_previous: asked once for `previous`; it raises FactUnavailable where there is none
    """

    requirements = _Known(known.REQUIREMENTS)
    weights = _Known(known.WEIGHTS)
    state = _Known(known.STATE)
    optimizer = _Known(known.OPTIMIZER)
    optimizers = _Known(known.OPTIMIZERS)
    scheduler = _Known(known.SCHEDULER)
    schedulers = _Known(known.SCHEDULERS)
    scaler = _Known(known.SCALER)
    rng = _Known(known.RNG)
    rngs = _Known(known.RNGS)
    config = _Known(known.CONFIG)
    recorded = _Known(known.RECORDED)
    progress = _Known(known.PROGRESS)
    contradictions = _Known(known.CONTRADICTIONS)
    dataloaders = _Known(known.DATALOADERS)
    ranks = _Known(known.RANKS)
    pointers = _Known(known.POINTERS)
    masters = _Known(known.MASTERS)
    seal = _Known(known.SEAL)

    def __init__(self, storage: Storage, limits: Limits = DEFAULT_LIMITS, layout: LayoutTraits = NO_LAYOUT) -> None:
        self._memo = Memo()
        self.files = Files(storage, limits, self._memo)
        self.layout = layout
        self.match: Match | None = None
        self.reading = Reading()
        self.find_previous: Callable[[Checkpoint], Checkpoint] = _no_previous

    def __getitem__(self, fact: Fact[T]) -> T:
        if self.files.root.kind is not RootKind.DIRECTORY:
            raise FactUnavailable(NO_DIRECTORY, path=".", blocked=True)
        return self._memo.get((fact, self.layout), partial(_answered, self, fact))

    def fact(self, compute: Callable[[Checkpoint, *Ts], T], *args: *Ts) -> T:
        """`compute(self, *args)`, remembered by the function and its arguments, which must be hashable.

        TypeError for a lambda or a partial, which is another one each time and would never be found again.
        """
        if "<lambda>" in getattr(compute, "__qualname__", "<lambda>"):
            raise TypeError(
                f"fact() remembers by the function, and {compute!r} is another one each time; define it in a module"
            )
        try:
            return self._memo.get((compute, args), partial(compute, self, *args))
        except TypeError as error:
            if not _are_hashable(args):
                raise TypeError(f"fact() can't remember by {args!r}: {error}") from None
            raise

    @property
    def path(self) -> str:
        """The checkpoint's path, as the user named it."""
        return self.files.path

    @property
    def listing(self) -> Listing:
        """Every file and directory in the checkpoint."""
        return self.files.listing

    @property
    def previous(self) -> Checkpoint:
        """The save to compare this one with: the one that the user named, or the complete one before it in its run."""
        return self.fact(_previous)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What lies in `files`, by the name that it had when it was an attribute of the checkpoint."""
            if name not in _FORMER:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return getattr(self.files, _FORMER[name])

    def mark(self) -> tuple[int, int]:
        """The present moment, for `forget_since`."""
        return len(self._memo), self.files.budget.room

    def forget_since(self, mark: tuple[int, int]) -> None:
        """Forget every fact that was computed since: whoever computed it was stopped, and may have left it half done."""
        known, self.files.budget.room = mark
        self.files.budget.repeated.clear()
        self._memo.forget_all_but(known)


def _answered(checkpoint: Checkpoint, fact: Fact[T]) -> T:
    answer = checkpoint.layout.answer(fact, checkpoint)
    if not isinstance(answer, fact.of):
        raise LayoutFault(
            checkpoint.layout.name, f"{fact.name} is {answer!r}, and must be of the class {fact.of.__name__}"
        )
    return answer


def _are_hashable(args: tuple[Any, ...]) -> bool:
    try:
        hash(args)
    except TypeError:
        return False
    return True


def _previous(checkpoint: Checkpoint) -> Checkpoint:
    found = checkpoint.find_previous(checkpoint)
    found.reading = checkpoint.reading
    return found


def _no_previous(_: Checkpoint) -> Checkpoint:
    raise FactUnavailable("no earlier save was given to compare with")
