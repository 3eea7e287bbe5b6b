"""What wrappers around a model add to the names of its parameters."""

from __future__ import annotations

from typing import Final

DATA_PARALLEL: Final = "module."  # `DataParallel` and `DistributedDataParallel` in torch/nn/parallel
COMPILED: Final = "_orig_mod."  # `OptimizedModule` in torch/_dynamo/eval_frame.py
FSDP: Final = "_fsdp_wrapped_module."  # `FullyShardedDataParallel` in torch/distributed/fsdp
CHECKPOINTED: Final = "_checkpoint_wrapped_module."  # `checkpoint_wrapper` in torch/distributed/algorithms

PREFIXES: Final = (DATA_PARALLEL, COMPILED, FSDP, CHECKPOINTED)

FLAT_PARAMETER: Final = "_flat_param"
"""What FSDP 1 calls the parameters that it has flattened into one: those beside it are a rank's piece of theirs."""
