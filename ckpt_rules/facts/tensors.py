"""Tensors and the files that hold them, known from headers alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ckpt_rules.errors import FactUnavailable

DTYPE_BITS: Mapping[str, int] = {
    "bool": 8,
    "uint8": 8, "int8": 8, "uint16": 16, "int16": 16, "uint32": 32, "int32": 32, "uint64": 64, "int64": 64,
    "float16": 16, "bfloat16": 16, "float32": 32, "float64": 64,
    "complex32": 32, "complex64": 64, "complex128": 128,
    "float8_e5m2": 8, "float8_e4m3fn": 8, "float8_e8m0fnu": 8, "float8_e4m3fnuz": 8, "float8_e5m2fnuz": 8,
    "float6_e2m3": 6, "float6_e3m2": 6, "float4_e2m1fn_x2": 4,
    "qint8": 8, "quint8": 8, "qint32": 32, "quint4x2": 8, "quint2x4": 8,
}  # fmt: skip
"""Bits of one element by torch's name of the dtype."""

HALF_DTYPES = frozenset({"float16", "bfloat16"})
FLOAT_DTYPES = frozenset(d for d in DTYPE_BITS if d.startswith(("float", "bfloat")))


class TensorInfo(NamedTuple):
    """One tensor, its values unread.

    dtype:          torch's name, `float32`, `bfloat16`, …
    shape:          elements per dimension
    nbytes:         bytes that the tensor's own elements take
    offset:         byte in the file where its storage (torch) or data (safetensors) starts, or None if unknown
    storage:        name of the torch storage it views; tensors with one name share memory. None in safetensors
    storage_nbytes: bytes of that storage: larger than `nbytes` where a view was saved
    value:          the number itself, read for tensors without dimensions only (step counters, learning rates)
    first:          number of its first element in the storage
    strides:        distance between neighbours in each dimension, in elements; None where the elements lie row by row
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    offset: int | None = None
    storage: str | None = None
    storage_nbytes: int | None = None
    value: float | int | bool | None = None
    first: int = 0
    strides: tuple[int, ...] | None = None

    @property
    def numel(self) -> int:
        """Number of elements; 1 for a tensor without dimensions."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class ReadProblem:
    """Something wrong in the bytes of one file, as its reader noticed it.

    code:    short stable name, such as `cut-short`, `storage-size`, `header-json`
    message: one lower-case sentence with the numbers in it
    offset:  byte in the file, or None where no single byte is to blame
    where:   the part of the file: a zip entry, a tensor, a JSON pointer
    fatal:   whether the format's own loader would refuse the file
    """

    code: str
    message: str
    offset: int | None = None
    where: str | None = None
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """The header of a safetensors file. `tensors` holds what is valid; an empty `problems` means that all is."""

    path: str
    size: int
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    header_nbytes: int
    problems: tuple[ReadProblem, ...] = ()


class GlobalRef(NamedTuple):
    """An importable name that a pickle asks for.

    offset:  the opcode's byte inside the pickle stream `stream`
    reached: whether the pickle gets at it with `getattr`; `builtins.getattr.__call__` where of what can't be told
    called:  whether the pickle calls it, or builds an instance of it
    given:   whether it calls it with arguments; an instance that is only filled is not called so
    network: whether the instances that it fills are modules of torch, by what it fills them with
    """

    module: str
    name: str
    stream: str
    offset: int
    reached: bool = False
    called: bool = False
    given: bool = False
    network: bool = False

    @property
    def dotted(self) -> str:
        """`module.name`."""
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Opaque:
    """An object that a pickle would have built, never built: its class or function, its arguments and its state.

    Compared by identity; `items` and `pairs` are what the pickle appended to it or set in it.
    """

    type: str
    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)
    state: object = None
    items: list[object] = field(default_factory=list)
    pairs: list[tuple[object, object]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TorchFile:
    """What `torch.save` wrote, read without running any of it.

    container: `zip`, `legacy` (before torch 1.6), `torchscript`, `pickle` (bare), or `unknown`
    value:     the saved object as plain dict, list, tuple, str, number, `TensorInfo`; everything else is `Opaque`
    globals:   every importable name the pickle asks for, in order, known ones too
    protocol:  pickle protocol, or None
    readable:  False where the object could not be reconstructed; `value` is then None
    nested:    where pickles and archives lie inside of it (`archive/data.pkl at byte 120`); `globals` holds theirs too
    byteorder: of the numbers in its storages, `little` or `big`
    """

    path: str
    size: int
    container: str
    value: object
    globals: tuple[GlobalRef, ...] = ()
    protocol: int | None = None
    readable: bool = True
    problems: tuple[ReadProblem, ...] = ()
    nested: tuple[str, ...] = ()
    byteorder: str = "little"


class ArchiveEntry(NamedTuple):
    """One entry of a zip file.

    offset: byte in the file where its content starts; None where that can't be told
    nbytes: bytes of the content as it lies in the file
    crc:    CRC-32 of the content; 0 also where the writer was told not to compute it
    stored: whether the content lies there as it is, not compressed
    """

    name: str
    offset: int | None
    nbytes: int
    crc: int
    stored: bool


@dataclass(frozen=True, slots=True)
class Archive:
    """The directory of a zip file: its entries, in order, and what is wrong with it."""

    path: str
    size: int
    entries: tuple[ArchiveEntry, ...]
    problems: tuple[ReadProblem, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the entries."""
        return tuple(entry.name for entry in self.entries)


@dataclass(frozen=True, slots=True)
class JsonFile:
    """A parsed JSON file. `value` is None where it can't be parsed; `problems` then says at which byte."""

    path: str
    size: int
    value: object
    problems: tuple[ReadProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file that holds model weights.

    format:   `safetensors` or `torch`
    key:      for weights inside a larger dictionary, the key that holds them (`model_state_dict`); '' otherwise
    tensors:  by name, in file order
    problems: what its reader found; the tensors may then be incomplete
    """

    path: str
    format: str
    tensors: Mapping[str, TensorInfo]
    key: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[ReadProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightIndex:
    """A `*.index.json`: which shard holds which tensor.

    weight_map: tensor name -> path of its file, relative to the checkpoint
    total_size: bytes of all tensors, as written in `metadata.total_size`, or None
    """

    path: str
    weight_map: Mapping[str, str]
    total_size: object = None


@dataclass(frozen=True, slots=True)
class Weights:
    """The model weights that a loader would take, and other copies of them.

    files:        what is loaded, in shard order
    index:        the index that names the shards, where there is one
    alternatives: further complete copies in another format or under another name, which the loader passes over
    passed_over:  indexes of such copies: some loaders go by an index wherever there is one
    expected:     file names that the index promises; those not in `files` are missing
    unindexed:    weight files of the same format that belong to no index and are not loaded
    parts:        the weights of each component, where the whole is loaded from several directories; `files` are then those
                  of all, the name of a tensor led by its component's
    behind:       shapes of trained parameters that are deliberately not saved (P-tuning's prompt encoder: only its output is)
    """

    files: tuple[WeightFile, ...]
    index: WeightIndex | None = None
    alternatives: tuple[tuple[WeightFile, ...], ...] = ()
    passed_over: tuple[WeightIndex, ...] = ()
    unindexed: tuple[WeightFile, ...] = ()
    parts: tuple[Weights, ...] = ()
    behind: tuple[tuple[int, ...], ...] = ()

    @property
    def expected(self) -> tuple[str, ...]:
        """Shard files that an index names, sorted."""
        own = set(self.index.weight_map.values()) if self.index else set()
        return tuple(sorted(own.union(*(part.expected for part in self.parts))))

    def items(self) -> Iterator[tuple[WeightFile, str, TensorInfo]]:
        """Every tensor of every loaded file with its file and name."""
        for file in self.files:
            for name, tensor in file.tensors.items():
                yield file, name, tensor

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """All loaded tensors by name; where two shards hold one name, the later shard's."""
        return {name: tensor for _, name, tensor in self.items()}

    @property
    def numel(self) -> int:
        """Parameters and buffers, in elements; names in two shards count once."""
        return sum(t.numel for t in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all loaded tensors."""
        return sum(t.nbytes for _, _, t in self.items())

    def complete(self) -> Weights:
        """These weights; FactUnavailable, blocked, where a damaged or missing file hides a part of them."""
        for file in self.broken:
            raise FactUnavailable(f"{file.path} is damaged", path=file.path, blocked=True)
        read = {f.path for f in self.files}
        for name in self.expected:
            if name not in read:
                raise FactUnavailable(f"{name} is missing", path=name, blocked=True)
        return self

    @property
    def broken(self) -> Sequence[WeightFile]:
        """Loaded files with a problem that hides tensors."""
        return [f for f in self.files if any(p.fatal for p in f.problems)]
