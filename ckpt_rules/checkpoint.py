"""One checkpoint and its facts, each computed when first asked for, and once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from ckpt_rules import file_facts, own_facts
from ckpt_rules.deep.reading import Reading
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.files import Entry, FileHead, Listing, Root, RootKind
from ckpt_rules.facts.values import Wanted
from ckpt_rules.layout import Layout, PlainFiles, Requirement
from ckpt_rules.limits import DEFAULT_LIMITS, Limits
from ckpt_rules.readers.budget import Budget
from ckpt_rules.signature import Match
from ckpt_rules.storage import FilesOfSave, LocalStorage, OneFile, Storage

if TYPE_CHECKING:
    import os

    from ckpt_rules.facts.distributed import DistributedMetadata
    from ckpt_rules.facts.loaders import DataLoaders
    from ckpt_rules.facts.ocdbt import OcdbtDatabase, ZstdFrame
    from ckpt_rules.facts.pointers import Pointer
    from ckpt_rules.facts.ranks import Ranks
    from ckpt_rules.facts.seal import Seal
    from ckpt_rules.facts.tensors import Archive, JsonFile, SafetensorsFile, TorchFile, Weights
    from ckpt_rules.facts.training import (
        Contradiction,
        ModelConfig,
        OptimizerState,
        Progress,
        Recorded,
        RngState,
        ScalerState,
        SchedulerState,
        TrainingState,
    )
    from ckpt_rules.facts.values import BytesRead, Located, Master, Measure, Measured

P = ParamSpec("P")
T = TypeVar("T")


class Checkpoint:
    """A checkpoint directory, opened once.

    Every attribute below is a fact. One that can't be had raises `FactUnavailable`, for each who asks, at no cost after
    the first. `fact` gives any other function of a checkpoint the same treatment. Two are no facts, for they change while
    the checkpoint is read: `read_errors` and `look_again`.

    read_errors:   files that the system refused to give, so far, and its words; '.' is the directory
    reading:       how every byte is read, where that is asked for
    find_previous: asked once for `previous`; it raises FactUnavailable where there is none
    """

    def __init__(self, storage: Storage, limits: Limits = DEFAULT_LIMITS) -> None:
        self.storage = storage
        self.budget = Budget(limits)
        self.layout: Layout = PlainFiles()
        self.match: Match | None = None
        self.read_errors: dict[str, str] = {}
        self.reading = Reading()
        self.find_previous: Callable[[Checkpoint], Checkpoint] = own_facts.no_previous
        self._facts: dict[object, tuple[bool, Any]] = {}
        self._bytes: BytesRead | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], layouts: Iterable[Layout] = ()) -> Checkpoint:
        """A checkpoint on a local path, laid out as the best-matching layout says; never raises for a bad path."""
        checkpoint = cls(LocalStorage(path))
        if checkpoint.root.kind is RootKind.DIRECTORY:
            matches = [(layout.recognise(checkpoint), layout) for layout in layouts]
            checkpoint.use(matches)
        return checkpoint

    def use(self, matches: Iterable[tuple[Match | None, Layout]]) -> tuple[Layout, ...]:
        """Take the layout with the highest score; of equals, which are returned, the one whose name comes first."""
        found = [(match, layout) for match, layout in matches if match]
        if not found:
            return ()
        self.match, self.layout = min(found, key=lambda m: (-m[0].score, m[1].name))
        equals = [layout for match, layout in found if match.score == self.match.score]
        return tuple(sorted(equals, key=lambda layout: layout.name))

    def fact(self, compute: Callable[Concatenate[Checkpoint, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`compute(self, *args)`, remembered. Its arguments must be hashable; keyword arguments are not taken."""
        key = (compute, args)
        if key not in self._facts:
            try:
                self._facts[key] = (True, compute(self, *args, **kwargs))
            except FactUnavailable as absent:
                self._facts[key] = (False, absent)
        known, value = self._facts[key]
        if not known:
            raise FactUnavailable(value.reason, path=value.path, blocked=value.blocked)
        return cast("T", value)

    def read_all(self, wanted: Wanted) -> BytesRead:
        """What reading every byte once has found; they are read again only for what was not wanted before."""
        if self._bytes is None or not self._bytes.wanted.includes(wanted):
            from ckpt_rules.deep.passing import read_bytes

            self._bytes = read_bytes(self, wanted | self._bytes.wanted if self._bytes else wanted, self.reading)
            for path, words in self._bytes.unread.items():
                self.read_errors.setdefault(path, words)
        return self._bytes

    @property
    def located(self) -> tuple[Located, ...]:
        """Every tensor in the files, weights or not, and where its elements lie; one with several names comes by each."""
        from ckpt_rules.deep.locate import located_tensors

        return self.fact(located_tensors)

    def measured(self, measures: Measure) -> Iterator[Measured]:
        """Every tensor of `located` with these measures of its values; see `read_all`.

        One that could not be read, or that has no elements, does not come.
        """
        return self.read_all(Wanted(measures)).measured(self.located)

    def missed(self, wanted: Wanted) -> dict[str, str]:
        """Files that `read_all` could not look at as a whole for what is wanted, and why: their answer is not known."""
        from ckpt_rules.deep.missing import missed

        return missed(self, wanted)

    @property
    def weight_names(self) -> Mapping[tuple[str, str], str]:
        """The name in the model of each tensor of `located` that is a weight, by its file and the name that it has there."""
        from ckpt_rules.deep.naming import weight_names

        return self.fact(weight_names)

    def measured_weights(self, measures: Measure) -> Iterator[tuple[str, Measured]]:
        """The weights, by their names in the model, with these measures of their values; see `measured`.

        FactUnavailable where there are no weights, or none whose values could be read.
        """
        names = self.weight_names
        found = False
        for measured in self.measured(measures):
            name = names.get((measured.tensor.path, measured.tensor.name))
            if name is not None:
                found = True
                yield name, measured
        if not found:
            raise FactUnavailable("there are no weights whose values could be read")

    def mark(self) -> tuple[int, int]:
        """The present moment, for `forget_since`."""
        return len(self._facts), self.budget.room

    def forget_since(self, mark: tuple[int, int]) -> None:
        """Forget every fact that was computed since: whoever computed it was stopped, and may have left it half done."""
        known, self.budget.room = mark
        self.budget.repeated.clear()
        for key in list(self._facts)[known:]:
            del self._facts[key]

    @property
    def is_one_file(self) -> bool:
        """Whether the path is a file, which is listed as a directory that holds nothing else."""
        return isinstance(self.storage, OneFile)

    @property
    def is_in_files(self) -> bool:
        """Whether it is one file, or several, of a directory that holds others as well."""
        return isinstance(self.storage, FilesOfSave)

    @property
    def path(self) -> str:
        """The checkpoint's path, as the user named it."""
        return self.root.path

    @property
    def root(self) -> Root:
        """What the checkpoint's path is."""
        return self.fact(own_facts.root)

    @property
    def listing(self) -> Listing:
        """Every file and directory in the checkpoint."""
        return self.fact(own_facts.listing)

    def head(self, path: str) -> FileHead:
        """What the first bytes of a file say that it is; FactUnavailable where it is no regular file."""
        return self.fact(file_facts.head, path)

    def files_in(self, file_format: str) -> list[Entry]:
        """Files whose name says that they are in a format, and whose content does not belie it.

        file_format: `safetensors`, `torch` or `json`. Files that are empty, unreadable, a stand-in or of another known
        format are left out: rules of the `files` family report those.
        """
        return self.fact(file_facts.files_in, file_format)

    def look_again(self, path: str) -> Entry | None:
        """What lies at a path of the listing by now; None where nothing does. Looked up each time."""
        return self.storage.look_again(path)

    def note(self, path: str) -> str | None:
        """The text of a small file, of at most 4,096 bytes, stripped; None where it is no such file.

        path: relative to the checkpoint; one that begins with `../` lies beside it
        """
        return self.fact(file_facts.note, path)

    def note_fault(self, path: str) -> str | None:
        """Why what lies at a path is no such file, `it is a FIFO, not a file`; None where it is one, or nothing lies there."""
        return self.fact(file_facts.note_fault, path)

    def beside(self, path: str) -> Entry | None:
        """What lies at a path in the directory above the checkpoint, `step-20/.metadata`; None where nothing does."""
        return self.fact(file_facts.beside, path)

    def safetensors(self, path: str) -> SafetensorsFile:
        """The header of a safetensors file."""
        return self.fact(file_facts.safetensors, path)

    def torch_file(self, path: str) -> TorchFile:
        """What a file by `torch.save` holds, read without running any of it."""
        return self.fact(file_facts.torch_file, path)

    def torch_parts(self, path: str, spans: tuple[tuple[int, int], ...]) -> tuple[TorchFile, ...]:
        """What the files by `torch.save` in ranges of a file hold, offsets from there; parts of the same bytes are one."""
        return self.fact(file_facts.torch_parts, path, spans)

    def archive(self, path: str) -> Archive:
        """The directory of a zip file, whoever wrote it."""
        return self.fact(file_facts.archive, path)

    def archive_parts(self, path: str, spans: tuple[tuple[int, int], ...]) -> tuple[Archive, ...]:
        """The directories of zip files that lie one after the other in a file; see `torch_parts`."""
        return self.fact(file_facts.archive_parts, path, spans)

    def distributed(self, path: str = ".metadata") -> DistributedMetadata:
        """The metadata of a distributed checkpoint.

        Of a `.metadata` that is not there, it is what the `__R.metadata` of all ranks say together, and `path` the first.
        """
        return self.fact(file_facts.distributed, path)

    @property
    def metadata_files(self) -> tuple[str, ...]:
        """The metadata files of distributed checkpoints: each `.metadata`, or the `__R.metadata` of each rank."""
        return self.fact(file_facts.metadata_files)

    def ocdbt(self, path: str, values: bool = True) -> OcdbtDatabase:
        """The OCDBT database whose manifest lies at a path: its keys, and where their values lie; or its files alone."""
        return self.fact(file_facts.ocdbt, path, values)

    def pieces(self, path: str, spans: tuple[tuple[int, int], ...]) -> tuple[bytes, ...]:
        """Ranges of a file: each from a byte on, so many bytes long, of at most 64 KiB."""
        return self.fact(file_facts.pieces, path, spans)

    def zstd_frames(self, path: str, spans: tuple[tuple[int, int], ...], most: int) -> tuple[ZstdFrame, ...]:
        """The zstd frames in ranges of a file; of all of them together, at most so many blocks are walked."""
        return self.fact(file_facts.zstd_frames, path, spans, most)

    def json(self, path: str) -> JsonFile:
        """A parsed JSON file."""
        return self.fact(file_facts.json, path)

    def text(self, path: str) -> str:
        """What a file of text holds, of at most 16 MiB; bytes that are no UTF-8 are kept as surrogate escapes."""
        return self.fact(file_facts.text, path)

    @property
    def seal(self) -> Seal:
        """What `ckpt-rules seal` wrote down; FactUnavailable, with a path where it is there and can't be read."""
        return self.fact(file_facts.seal)

    def contents(self, path: str) -> object:
        """What a torch or JSON file holds; FactUnavailable, blocked, where it can't be read as a whole."""
        file: JsonFile | TorchFile = self.json(path) if path.endswith(".json") else self.torch_file(path)
        fatal = next((p for p in file.problems if p.fatal), None)
        if fatal:
            raise FactUnavailable(f"{path} can't be read: {fatal.message}", path=path, blocked=True)
        return file.value

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """Files that the layout can't resume without."""
        return self._ask(self.layout.requirements)

    @property
    def unmet(self) -> tuple[Requirement, ...]:
        """Those of `requirements` of which no file is there."""
        return self.fact(own_facts.unmet)

    @property
    def previous(self) -> Checkpoint:
        """The save to compare this one with: the one that the user named, or the complete one before it in its run."""
        return self.fact(own_facts.previous)

    @property
    def weights(self) -> Weights:
        """The model weights that a loader would take."""
        return self._ask(self.layout.weights)

    @property
    def state(self) -> TrainingState:
        """The dictionary that training resumes from."""
        return self._ask(self.layout.state)

    @property
    def optimizer(self) -> OptimizerState:
        """The optimizer's state."""
        return self._ask(self.layout.optimizer)

    @property
    def optimizers(self) -> tuple[OptimizerState, ...]:
        """Every optimizer's state; `optimizer` can't be had where there are several."""
        return self._ask(self.layout.optimizers)

    @property
    def scheduler(self) -> SchedulerState:
        """The learning-rate scheduler's state."""
        return self._ask(self.layout.scheduler)

    @property
    def schedulers(self) -> tuple[SchedulerState, ...]:
        """Every scheduler's state; `scheduler` can't be had where there are several."""
        return self._ask(self.layout.schedulers)

    @property
    def scaler(self) -> ScalerState:
        """The gradient scaler's state."""
        return self._ask(self.layout.scaler)

    @property
    def rng(self) -> RngState:
        """The state of the random-number generators."""
        return self._ask(self.layout.rng)

    @property
    def rngs(self) -> tuple[RngState, ...]:
        """The state of the random-number generators of every rank."""
        return self._ask(self.layout.rngs)

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self._ask(self.layout.config)

    @property
    def recorded(self) -> tuple[Recorded, ...]:
        """The progress counters as they are written, valid or not."""
        return self._ask(self.layout.recorded)

    @property
    def progress(self) -> Progress:
        """How far training got, and where it will start again."""
        return self._ask(self.layout.progress)

    @property
    def contradictions(self) -> tuple[Contradiction, ...]:
        """Counters that can't both be right in the trainer's own arithmetic."""
        return self._ask(self.layout.contradictions)

    @property
    def dataloaders(self) -> DataLoaders:
        """What the data loaders kept of their position."""
        return self._ask(self.layout.dataloaders)

    @property
    def ranks(self) -> Ranks:
        """What each rank wrote, and how many ranks there were."""
        return self._ask(self.layout.ranks)

    @property
    def pointers(self) -> tuple[Pointer, ...]:
        """Files in the checkpoint and beside it that name a save."""
        return self._ask(self.layout.pointers)

    @property
    def masters(self) -> tuple[Master, ...]:
        """The float32 master copies that the optimizer keeps of weights which are saved beside them."""
        return self._ask(self.layout.masters)

    def _ask(self, question: Callable[[Checkpoint], T]) -> T:
        if self.root.kind is not RootKind.DIRECTORY:
            raise FactUnavailable(own_facts.NO_DIRECTORY, path=".", blocked=True)
        # Bound methods of one layout compare equal, so the layout's answer is found again.
        return self.fact(question)
