"""Suffixes of files of checkpoints, lower case and with their dot."""

from __future__ import annotations

from typing import Final

TORCH: Final = (".ckpt", ".pth.tar", ".pth", ".pt")
"""What scripts give to files of torch.save, and to little else. The longer of two that fit comes first."""

TORCH_OR_OTHER: Final = (".bin", ".tar")
"""The same, and raw data (`train.bin` of nanoGPT) or a tar archive as often."""

WEIGHTS: Final = frozenset({
    ".pt", ".pth", ".ckpt", *TORCH_OR_OTHER,
    ".safetensors",
    ".distcp",  # torch.distributed.checkpoint
    ".h5", ".keras",  # Keras
    ".msgpack", ".npz",  # Flax, and scripts in JAX
})  # fmt: skip
"""Formats in which weights are saved."""

SAVED: Final = WEIGHTS | {
    ".metadata",  # torch.distributed.checkpoint, of each rank
    ".hdf5", ".npy", ".pkl", ".pickle", ".zip",
    ".nemo",  # NeMo: a tar archive
    ".ocdbt",  # TensorStore, for Orbax
}  # fmt: skip
"""The same, and formats of training state and of whole saves."""
