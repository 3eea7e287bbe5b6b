"""The linter for training checkpoints.

>>> from ckpt_rules import verify
>>> report = verify("runs/step-500")
>>> report.passed
False

Names are imported when first used, so that `import ckpt_rules` costs a millisecond.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # type checkers take it for typing's, which takes ten times as long to import as all of this

__version__ = "0.1.0"

_HOMES = {
    "ckpt_rules.api": ("diff", "inspect", "newest_checkpoint", "quick_verify_checkpoint", "seal", "stats", "verify"),
    "ckpt_rules.backend": ("Backend",),
    "ckpt_rules.checkpoint": ("Checkpoint",),
    "ckpt_rules.comparison": ("Change", "Comparison", "FileChange", "TensorChange", "Tensors", "ValueChange"),
    "ckpt_rules.dict_checkpoint": ("DictCheckpoint", "Newest"),
    "ckpt_rules.dictionaries": ("dictionary", "dictionary_or_empty", "inside", "options", "sound_counts", "updates_of"),
    "ckpt_rules.errors": (
        "CheckpointInvalid", "CkptRulesError", "FactUnavailable", "PluginError", "RulesetError", "UsageError",
    ),
    "ckpt_rules.facts.counters": ("counter_faults",),
    "ckpt_rules.facts.distributed": (
        "Chunk",
        "DistributedMetadata",
        "StoredFile",
        "StoredItem",
        "StoredItems",
        "StoredTensor",
    ),
    "ckpt_rules.facts.files": (
        "Content", "Entry", "EntryKind", "FileHead", "Listing", "Root", "RootKind", "rank_of_metadata", "saves_among",
    ),
    "ckpt_rules.facts.loaders": ("DataLoaders", "LoaderState"),
    "ckpt_rules.facts.ocdbt": ("OcdbtDatabase", "StoredValue", "ZstdFrame"),
    "ckpt_rules.facts.pointers": ("Pointer",),
    "ckpt_rules.facts.ranks": ("RankFiles", "Ranks"),
    "ckpt_rules.facts.seal": ("BOOKKEEPING", "SEAL_NAME", "SIGNATURE_NAME", "Seal", "SealedFile", "is_bookkeeping"),
    "ckpt_rules.facts.spelling": ("is_almost", "misspelling_of"),
    "ckpt_rules.facts.tensors": (
        "DTYPE_BITS", "FLOAT_DTYPES", "HALF_DTYPES", "Archive", "ArchiveEntry", "GlobalRef", "JsonFile", "Opaque", "ReadProblem",
        "SafetensorsFile", "TensorInfo", "TorchFile", "WeightFile", "WeightIndex", "Weights",
    ),
    "ckpt_rules.facts.training": (
        "Contradiction", "Field", "ModelConfig", "OptimizerState", "ParamGroup", "ParamState", "Progress", "Recorded", "ResumePlan",
        "RngFault", "RngState", "ScalerState", "SchedulerState", "TrainingState", "is_count", "plain",
    ),
    "ckpt_rules.facts.values": (
        "Block", "BytesRead", "Cast", "Digest", "Located", "Master", "Measure", "Measured", "Spot", "Values", "Wanted", "ZipMember",
    ),
    "ckpt_rules.finding": ("Finding", "Place", "Problem", "Severity"),
    "ckpt_rules.hookspecs": ("hookimpl",),
    "ckpt_rules.inspection": ("Inspection",),
    "ckpt_rules.layout": ("TO_RESUME_OR_LOAD", "Layout", "Requirement", "state_dicts"),
    "ckpt_rules.odd_names": ("hollow_saves",),
    "ckpt_rules.readers.sniff": ("expected_format",),
    "ckpt_rules.readers.pickle.unmarked": ("calls_something", "looks_loadable"),
    "ckpt_rules.readers.ocdbt.zstd_frame": ("zstd_frame",),
    "ckpt_rules.report": ("ExitCode", "Outcome", "Report", "Reports", "Status", "Verdict"),
    "ckpt_rules.rule": ("Reads", "Rule"),
    "ckpt_rules.neighbours": ("Siblings", "names_beside", "sibling", "siblings", "written_at"),
    "ckpt_rules.signature": ("Match", "Sign", "Signature", "Tells", "own_name"),
    "ckpt_rules.tensor_stats": ("CheckpointStats", "TensorStats"),
    "ckpt_rules.weights": ("find_weights", "flatten", "torch_weights", "weights_in", "weights_of_components"),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

if TYPE_CHECKING:
    from typing import Any

    from ckpt_rules.api import diff, inspect, newest_checkpoint, quick_verify_checkpoint, seal, stats, verify
    from ckpt_rules.backend import Backend
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.comparison import Change, Comparison, FileChange, TensorChange, Tensors, ValueChange
    from ckpt_rules.dict_checkpoint import DictCheckpoint, Newest
    from ckpt_rules.dictionaries import dictionary, dictionary_or_empty, inside, options, sound_counts, updates_of
    from ckpt_rules.errors import (
        CheckpointInvalid,
        CkptRulesError,
        FactUnavailable,
        PluginError,
        RulesetError,
        UsageError,
    )
    from ckpt_rules.facts.counters import counter_faults
    from ckpt_rules.facts.distributed import (
        Chunk,
        DistributedMetadata,
        StoredFile,
        StoredItem,
        StoredItems,
        StoredTensor,
    )
    from ckpt_rules.facts.files import (
        Content,
        Entry,
        EntryKind,
        FileHead,
        Listing,
        Root,
        RootKind,
        rank_of_metadata,
        saves_among,
    )
    from ckpt_rules.facts.loaders import DataLoaders, LoaderState
    from ckpt_rules.facts.ocdbt import OcdbtDatabase, StoredValue, ZstdFrame
    from ckpt_rules.facts.pointers import Pointer
    from ckpt_rules.facts.ranks import RankFiles, Ranks
    from ckpt_rules.facts.seal import BOOKKEEPING, SEAL_NAME, SIGNATURE_NAME, Seal, SealedFile, is_bookkeeping
    from ckpt_rules.facts.spelling import is_almost, misspelling_of
    from ckpt_rules.facts.tensors import (
        DTYPE_BITS,
        FLOAT_DTYPES,
        HALF_DTYPES,
        Archive,
        ArchiveEntry,
        GlobalRef,
        JsonFile,
        Opaque,
        ReadProblem,
        SafetensorsFile,
        TensorInfo,
        TorchFile,
        WeightFile,
        WeightIndex,
        Weights,
    )
    from ckpt_rules.facts.training import (
        Contradiction,
        Field,
        ModelConfig,
        OptimizerState,
        ParamGroup,
        ParamState,
        Progress,
        Recorded,
        ResumePlan,
        RngFault,
        RngState,
        ScalerState,
        SchedulerState,
        TrainingState,
        is_count,
        plain,
    )
    from ckpt_rules.facts.values import (
        Block,
        BytesRead,
        Cast,
        Digest,
        Located,
        Master,
        Measure,
        Measured,
        Spot,
        Values,
        Wanted,
        ZipMember,
    )
    from ckpt_rules.finding import Finding, Place, Problem, Severity
    from ckpt_rules.hookspecs import hookimpl
    from ckpt_rules.inspection import Inspection
    from ckpt_rules.layout import TO_RESUME_OR_LOAD, Layout, Requirement
    from ckpt_rules.neighbours import Siblings, names_beside, sibling, siblings, written_at
    from ckpt_rules.odd_names import hollow_saves
    from ckpt_rules.readers.ocdbt.zstd_frame import zstd_frame
    from ckpt_rules.readers.pickle.unmarked import calls_something, looks_loadable
    from ckpt_rules.readers.sniff import expected_format
    from ckpt_rules.readers.state_dicts import parts as state_dicts
    from ckpt_rules.report import ExitCode, Outcome, Report, Reports, Status, Verdict
    from ckpt_rules.rule import Reads, Rule
    from ckpt_rules.signature import Match, Sign, Signature, Tells, own_name
    from ckpt_rules.tensor_stats import CheckpointStats, TensorStats
    from ckpt_rules.weights import find_weights, flatten, torch_weights, weights_in, weights_of_components

__all__ = [
    "BOOKKEEPING",
    "DTYPE_BITS",
    "FLOAT_DTYPES",
    "HALF_DTYPES",
    "SEAL_NAME",
    "SIGNATURE_NAME",
    "TO_RESUME_OR_LOAD",
    "Archive",
    "ArchiveEntry",
    "Backend",
    "Block",
    "BytesRead",
    "Cast",
    "Change",
    "Checkpoint",
    "CheckpointInvalid",
    "CheckpointStats",
    "Chunk",
    "CkptRulesError",
    "Comparison",
    "Content",
    "Contradiction",
    "DataLoaders",
    "DictCheckpoint",
    "Digest",
    "DistributedMetadata",
    "Entry",
    "EntryKind",
    "ExitCode",
    "FactUnavailable",
    "Field",
    "FileChange",
    "FileHead",
    "Finding",
    "GlobalRef",
    "Inspection",
    "JsonFile",
    "Layout",
    "Listing",
    "LoaderState",
    "Located",
    "Master",
    "Match",
    "Measure",
    "Measured",
    "ModelConfig",
    "Newest",
    "OcdbtDatabase",
    "Opaque",
    "OptimizerState",
    "Outcome",
    "ParamGroup",
    "ParamState",
    "Place",
    "PluginError",
    "Pointer",
    "Problem",
    "Progress",
    "RankFiles",
    "Ranks",
    "ReadProblem",
    "Reads",
    "Recorded",
    "Report",
    "Reports",
    "Requirement",
    "ResumePlan",
    "RngFault",
    "RngState",
    "Root",
    "RootKind",
    "Rule",
    "RulesetError",
    "SafetensorsFile",
    "ScalerState",
    "SchedulerState",
    "Seal",
    "SealedFile",
    "Severity",
    "Siblings",
    "Sign",
    "Signature",
    "Spot",
    "Status",
    "StoredFile",
    "StoredItem",
    "StoredItems",
    "StoredTensor",
    "StoredValue",
    "Tells",
    "TensorChange",
    "TensorInfo",
    "TensorStats",
    "Tensors",
    "TorchFile",
    "TrainingState",
    "UsageError",
    "ValueChange",
    "Values",
    "Verdict",
    "Wanted",
    "WeightFile",
    "WeightIndex",
    "Weights",
    "ZipMember",
    "ZstdFrame",
    "__version__",
    "calls_something",
    "counter_faults",
    "dictionary",
    "dictionary_or_empty",
    "diff",
    "expected_format",
    "find_weights",
    "flatten",
    "hollow_saves",
    "hookimpl",
    "inside",
    "inspect",
    "is_almost",
    "is_bookkeeping",
    "is_count",
    "looks_loadable",
    "misspelling_of",
    "names_beside",
    "newest_checkpoint",
    "options",
    "own_name",
    "plain",
    "quick_verify_checkpoint",
    "rank_of_metadata",
    "saves_among",
    "seal",
    "sibling",
    "siblings",
    "sound_counts",
    "state_dicts",
    "stats",
    "torch_weights",
    "updates_of",
    "verify",
    "weights_in",
    "weights_of_components",
    "written_at",
    "zstd_frame",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ckpt_rules' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
