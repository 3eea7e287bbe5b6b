"""The linter for training checkpoints.

>>> from ckpt_rules import verify
>>> report = verify("runs/step-500")
>>> report.passed
False

Names are imported when first used, so that `import ckpt_rules` costs a millisecond.
"""

# Type checkers and editors read __init__.pyi, which `make docs` writes from this table.
_HOMES = {
    "ckpt_rules.api": ("diff", "inspect", "newest_checkpoint", "quick_verify_checkpoint", "seal", "stats", "verify"),
    "ckpt_rules.backend": ("Backend",),
    "ckpt_rules.checkpoint": ("Checkpoint",),
    "ckpt_rules.comparison": ("Change", "Comparison", "FileChange", "TensorChange", "Tensors", "ValueChange"),
    "ckpt_rules.conventions.distributed": ("rank_of_metadata", "rank_of_shard"),
    "ckpt_rules.conventions.saves": ("saves_among",),
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
        "Content", "Entry", "EntryKind", "FileHead", "Listing", "Root", "RootKind",
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
    "ckpt_rules.inspection.model": ("Inspection",),
    "ckpt_rules.deep.facts": (
        "located_tensors", "measured_tensors", "measured_weights", "read_all", "unread_files", "weight_names",
    ),
    "ckpt_rules.fact": ("Fact",),
    "ckpt_rules.known_facts": (
        "CONFIG", "CONTRADICTIONS", "DATALOADERS", "MASTERS", "OPTIMIZER", "OPTIMIZERS", "POINTERS", "PROGRESS", "RANKS", "RECORDED",
        "REQUIREMENTS", "RNG", "RNGS", "SCALER", "SCHEDULER", "SCHEDULERS", "SEAL", "STATE", "WEIGHTS",
    ),
    "ckpt_rules.layout": ("Layout", "missing_requirements"),
    "ckpt_rules.opening": ("checkpoint_at",),
    "ckpt_rules.traits": ("TO_RESUME_OR_LOAD", "LayoutTraits", "Match", "Requirement"),
    "ckpt_rules.odd_names": ("hollow_saves",),
    "ckpt_rules.readers.sniff": ("expected_format",),
    "ckpt_rules.readers.pickle.unmarked": ("calls_something", "looks_loadable"),
    "ckpt_rules.readers.ocdbt.zstd_frame": ("zstd_frame",),
    "ckpt_rules.report": ("ExitCode", "Outcome", "Report", "Reports", "Status", "Verdict"),
    "ckpt_rules.rule": ("Reads", "Rule"),
    "ckpt_rules.neighbours": ("Siblings", "names_beside", "sibling", "siblings", "written_at"),
    "ckpt_rules.tensor_stats.model": ("CheckpointStats", "TensorStats"),
    "ckpt_rules.version": ("__version__",),
    "ckpt_rules.signature": ("Sign", "Signature", "Tells", "own_name"),
    "ckpt_rules.weights": ("find_weights", "flatten", "torch_weights", "weights_in", "weights_of_components"),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = {"conventions": "ckpt_rules.conventions", "state_dicts": "ckpt_rules.readers.state_dicts"}

__all__ = sorted([*_HOME_OF, *_MODULES])  # noqa: PLE0605 - read at run time only; the stub says the same


def __getattr__(name: str) -> object:
    home = _MODULES.get(name) or _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'ckpt_rules' has no attribute {name!r}")
    value = __import__(home, fromlist=("__name__",))
    if name not in _MODULES:
        value = getattr(value, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
