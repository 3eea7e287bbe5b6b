"""Importable names that real training checkpoints ask for, besides those that torch itself lets through.

Seen in files that the libraries wrote, or listed by the library's own `add_safe_globals`. Pairs are exact: a module is never
trusted for its names, because most modules hand on `os`, `sys` or worse. Where the classes of a module are open-ended,
the module is listed under `CLASSES`, and only what is spelt like a class counts.
"""

from __future__ import annotations

import re

from ckpt_rules_safety.torch_globals import ALLOWED_PAIRS

_NAMES = {
    "_io": "BytesIO",
    "accelerate.state": "PartialState",
    "accelerate.utils.dataclasses": "DeepSpeedPlugin DistributedType FullyShardedDataParallelPlugin",
    "argparse": "Namespace",
    "builtins": "bool bytes dict float frozenset getattr int list object range slice str tuple",
    "collections": "OrderedDict Counter defaultdict deque",
    "copyreg": "_reconstructor __newobj__",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "deepspeed.runtime.fp16.loss_scaler": "DynamicLossScaler LossScaler",
    "deepspeed.runtime.zero.config": "ZeroStageEnum",
    "deepspeed.utils.tensor_fragment": "fragment_address",
    "fractions": "Fraction",
    "galore_torch.galore_projector": "GaLoreProjector",
    "galore_torch.galore_projector_tensor": "GaLoreProjectorTensor",
    "joblib.numpy_pickle": "NumpyArrayWrapper",
    "lightning.fabric.utilities.data": "AttributeDict",
    "lightning.pytorch.utilities.parsing": "AttributeDict",
    "lightning_fabric.utilities.data": "AttributeDict",
    "megatron.core.enums": "ModelType",
    "megatron.core.optimizer": "OptimizerConfig",
    "megatron.core.optimizer.optimizer_config": "OptimizerConfig",
    "megatron.core.rerun_state_machine": "RerunDiagnostic RerunMode RerunState",
    "megatron.core.transformer.enums": "AttnBackend AttnMaskType AttnType CudaGraphScope LayerType ModelType",
    "mmengine.logging.history_buffer": (
        "HistoryBuffer HistoryBuffer.current HistoryBuffer.max HistoryBuffer.mean HistoryBuffer.min"
    ),
    "numpy": "bool_ dtype float16 float32 float64 int16 int32 int64 int8 ndarray uint16 uint32 uint64 uint8",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy._core.numeric": "_frombuffer",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64 PCG64DXSM",
    "numpy.random._philox": "Philox",
    "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
    "numpy.random._sfc64": "SFC64",
    "numpy.random.bit_generator": "SeedSequence __pyx_unpickle_SeedSequence",
    "olmo_core.distributed.checkpoint.filesystem": "_StorageInfo",
    "omegaconf.base": "ContainerMetadata Metadata",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.nodes": "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode PathNode StringNode",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "pathlib._local": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "prime_rl.orchestrator.types": "Progress",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    "random": "Random",
    "sentence_transformers.base.sampler": "BatchSamplers MultiDatasetBatchSamplers",
    "sentence_transformers.cross_encoder.training_args": "CrossEncoderTrainingArguments",
    "sentence_transformers.multi_vector_encoder.training_args": "MultiVectorEncoderTrainingArguments",
    "sentence_transformers.sentence_transformer.training_args": "SentenceTransformerTrainingArguments",
    "sentence_transformers.sparse_encoder.training_args": "SparseEncoderTrainingArguments",
    "sentence_transformers.training_args": (
        "BatchSamplers MultiDatasetBatchSamplers SentenceTransformerTrainingArguments"
    ),
    "signal": "Signals",
    "torch": "Generator Size dtype layout memory_format strided",
    "torch._C._nn": "gelu",
    "torch.jit._pickle": "build_boollist build_doublelist build_intlist build_tensorlist restore_type_tag",
    "torch._C": "Size",
    "torch.distributed.checkpoint.filesystem": "_StorageInfo _StoragePrefix",
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata ChunkStorageMetadata Metadata MetadataIndex StorageMeta TensorProperties "
        "TensorStorageMetadata _MEM_FORMAT_ENCODING"
    ),
    "torch.distributed.checkpoint.planner": "SavePlan TensorWriteData WriteItem WriteItemType",
    "torch.distributed._shard.metadata": "ShardMetadata",
    "torch.distributed._shard.sharded_tensor.api": "ShardedTensor ShardedTensor.ProcessGroupState",
    "torch.distributed._shard.sharded_tensor.metadata": "MEM_FORMAT_ENCODING ShardedTensorMetadata TensorProperties",
    "torch.distributed._shard.sharded_tensor.shard": "Shard",
    "torch.distributed._shard.sharding_spec.api": "EnumerableShardingSpec",
    "torch.distributed._shard.sharding_spec.chunk_sharding_spec": "ChunkShardingSpec",
    "torch.distributed.remote_device": "_remote_device",
    "torch.distributed._tensor": "DTensor",
    "torch.distributed._tensor.api": "DTensor",
    "torch.distributed._tensor.placement_types": "DTensorSpec Partial Replicate Shard TensorMeta",
    "torch.distributed.tensor._api": "DTensor",
    "torch.nn.functional": "gelu leaky_relu relu silu softmax tanh",
    "torch.nn.modules.container": "OrderedDict",
    "torch.nn.parallel.distributed": "DistributedDataParallel",
    "torch.optim.adam": "Adam",
    "torch.optim.adamw": "AdamW",
    "torch.optim.sgd": "SGD",
    "torch.storage": "_load_from_bytes",
    "torch.torch_version": "TorchVersion",
    "torchao.optim.subclass_4bit": "OptimState4bit",
    "torchao.optim.subclass_8bit": "OptimState8bit",
    "torchao.optim.subclass_fp8": "OptimStateFp8",
    "torchao.prototype.low_bit_optim.subclass_4bit": "OptimState4bit",
    "torchao.prototype.low_bit_optim.subclass_8bit": "OptimState8bit",
    "torchao.prototype.low_bit_optim.subclass_fp8": "OptimStateFp8",
    "transformers.trainer_pt_utils": "AcceleratorConfig LayerWiseDummyOptimizer",
    "transformers.trainer_utils": (
        "EvaluationStrategy FSDPOption HubStrategy IntervalStrategy SaveStrategy SchedulerType ShardedDDPOption"
    ),
    "transformers.integrations.deepspeed": "HfDeepSpeedConfig HfTrainerDeepSpeedConfig",
    "transformers.training_args": "OptimizerNames ParallelMode TrainingArguments",
    "transformers.training_args_seq2seq": "Seq2SeqTrainingArguments",
    "types": "SimpleNamespace",
    "typing": "Any Dict List Optional Tuple Union",
}

KNOWN = frozenset((module, name) for module, names in _NAMES.items() for name in names.split())
"""(module, name) of each."""

CLASSES = (
    "gym.spaces",
    "gymnasium.spaces",
    "models.common",
    "models.yolo",
    "numpy.dtypes",
    "scipy.sparse",
    "sklearn",
    "stable_baselines3.common",
    "torch.ao.nn",
    "torch.nn.modules",
    "torch.optim.lr_scheduler",
    "torch.utils.data.sampler",
    "transformers.models",
    "trl.trainer",
    "ultralytics.nn.modules",
    "ultralytics.nn.tasks",
    "ultralytics.utils",
)
"""Modules, with those below them, whose classes a checkpoint may hold: whole networks, samplers, configurations."""

_ONLY_FILLED = frozenset((module, name) for module, names in {
    "accelerate.state": "PartialState",
    "accelerate.utils.dataclasses": "DeepSpeedPlugin FullyShardedDataParallelPlugin",
    "argparse": "Namespace",
    "deepspeed.runtime.fp16.loss_scaler": "DynamicLossScaler LossScaler",
    "deepspeed.utils.tensor_fragment": "fragment_address",
    "galore_torch.galore_projector": "GaLoreProjector",
    "galore_torch.galore_projector_tensor": "GaLoreProjectorTensor",
    "joblib.numpy_pickle": "NumpyArrayWrapper",
    "lightning.fabric.utilities.data": "AttributeDict",
    "lightning.pytorch.utilities.parsing": "AttributeDict",
    "lightning_fabric.utilities.data": "AttributeDict",
    "megatron.core.optimizer": "OptimizerConfig",
    "megatron.core.optimizer.optimizer_config": "OptimizerConfig",
    "megatron.core.rerun_state_machine": "RerunDiagnostic",
    "mmengine.logging.history_buffer": "HistoryBuffer",
    "numpy": "ndarray",
    "omegaconf.base": "ContainerMetadata Metadata",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.nodes": "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode PathNode StringNode",
    "prime_rl.orchestrator.types": "Progress",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    "random": "Random",
    "torch.distributed.checkpoint.filesystem": "_StorageInfo _StoragePrefix",
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata ChunkStorageMetadata Metadata MetadataIndex StorageMeta TensorStorageMetadata"
    ),
    "torch.distributed.checkpoint.planner": "SavePlan TensorWriteData WriteItem",
    "torch.nn.parallel.distributed": "DistributedDataParallel",
    "torch.optim.adam": "Adam",
    "torch.optim.adamw": "AdamW",
    "torch.optim.sgd": "SGD",
    "transformers.integrations.deepspeed": "HfDeepSpeedConfig HfTrainerDeepSpeedConfig",
    "transformers.trainer_pt_utils": "AcceleratorConfig LayerWiseDummyOptimizer",
    "types": "SimpleNamespace",
}.items() for name in names.split())  # fmt: skip
_ARGUMENTS = re.compile(r"\w*TrainingArguments")
_ENUMERATION = re.compile(r"\w*(?:Level|Method|Mode|Names|Strategy|Type)")
# scikit-learn's trees and losses, and sparse arrays, are made by a call.
_NOT_FILLED = ("gym.spaces", "gymnasium.spaces", "numpy.dtypes", "scipy.sparse", "sklearn")

_CLASS = re.compile(r"_?[A-Z][A-Za-z0-9_]*")


def is_known(module: str, name: str) -> bool:
    """Whether checkpoints are known to ask for a name; `__torch__` are the classes that a TorchScript file brings along."""
    if (module, name) in KNOWN or (module, name) in ALLOWED_PAIRS:
        return True
    if module.partition(".")[0] == "__torch__":
        return True
    return _CLASS.fullmatch(name) is not None and _lies_in(module, CLASSES)


def is_only_filled(module: str, name: str) -> bool:
    """Whether it is a known class that pickles of real files make without arguments, and then fill.

    Members of enumerations, dates, paths and the like are made by a call.
    """
    if (module, name) in _ONLY_FILLED or (_ARGUMENTS.fullmatch(name) and (module, name) in KNOWN):
        return True
    if (module, name) in KNOWN or (module, name) in ALLOWED_PAIRS or _ENUMERATION.fullmatch(name):
        return False
    return is_known(module, name) and _lies_in(module, CLASSES) and not _lies_in(module, _NOT_FILLED)


def _lies_in(module: str, modules: tuple[str, ...]) -> bool:
    return any(module == m or module.startswith(f"{m}.") for m in modules)


REGISTERED = frozenset(f"{m}.{n}" for m, names in _NAMES.items() if m.startswith("torchao.") for n in names.split())
"""Names that a package lets through by itself as it is imported, which whoever resumes with its optimizer has done."""
