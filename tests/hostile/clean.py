"""Clean files, written by the libraries that write them in training; the few that are made by hand say so."""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import io
import json
import pathlib
import pickle
import random
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

from tests.hostile.archives import torch_file
from tests.hostile.programs import text
from tests.hostile.samples import Files, Sample


def _saved(value: object, *, legacy: bool = False) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def _model() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4))


def _weights() -> Any:
    return _model().state_dict()


def _training_state() -> dict[str, Any]:
    """What a plain loop saves: model, AdamW after a step, scheduler, scaler, counters."""
    import torch

    model = _model()
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 20])
    model(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    scheduler.step()
    scaler = torch.amp.GradScaler("cpu")
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": scaler.state_dict(),
        "epoch": 1,
        "global_step": 1,
    }


def _random_states() -> dict[str, Any]:
    import numpy as np
    import torch

    return {
        "python": random.Random(0).getstate(),
        "numpy": np.random.RandomState(0).get_state(),
        "torch": torch.get_rng_state(),
    }


def _tensors() -> dict[str, Any]:
    import torch

    return {
        "bfloat16": torch.ones(3, dtype=torch.bfloat16),
        "complex": torch.ones(3, dtype=torch.complex64),
        "sparse": torch.eye(3).to_sparse(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
    }


def _containers() -> dict[str, Any]:
    return {
        "window": collections.deque([0.5, 0.4], maxlen=10),
        "counts": collections.Counter(a=1),
        "lists": collections.defaultdict(list, a=[1]),
        "started": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "path": pathlib.PurePosixPath("runs/a"),
        "seen": {1, 2},
    }


def _numpy_values() -> dict[str, Any]:
    import numpy as np

    return {"loss": np.float64(1.5), "a": np.arange(3), "generator": np.random.default_rng(0)}


def _npy() -> bytes:
    import numpy as np

    stream = io.BytesIO()
    np.save(stream, np.arange(5))
    return stream.getvalue()


def _safetensors() -> bytes:
    from safetensors.torch import save

    content: bytes = save(_weights(), {"format": "pt"})
    return content


def _lightning() -> bytes:
    """What Lightning dumps of a trainer that has not been run."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        from lightning.pytorch import LightningModule, Trainer

        class Module(LightningModule):  # type: ignore[misc]
            def __init__(self, options: argparse.Namespace) -> None:
                super().__init__()
                self.save_hyperparameters()
                self.model = _model()

        options = argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath("data"))
        trainer = Trainer(default_root_dir=folder, logger=False, enable_progress_bar=False, accelerator="cpu")
        trainer.strategy.connect(Module(options))
        trainer.save_checkpoint(path := f"{folder}/last.ckpt", weights_only=False)
        return pathlib.Path(path).read_bytes()


def _training_arguments() -> bytes:
    from transformers import TrainingArguments

    with tempfile.TemporaryDirectory() as folder:
        return _saved(TrainingArguments(output_dir=folder, use_cpu=True, report_to=[]))


def _omegaconf() -> bytes:
    from omegaconf import OmegaConf

    return _saved({"hyper_parameters": OmegaConf.create({"lr": 0.1, "layers": [1, 2]})})


def _distributed() -> Files:
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        dcp.save({"model": _weights(), "step": 1, "note": {"lr": 0.1}}, checkpoint_id=folder, no_dist=True)
        return {path.name: path.read_bytes() for path in sorted(pathlib.Path(folder).iterdir())}


def _object_of(module: str, name: str, state: dict[str, Any]) -> bytes:
    """The opcodes by which protocol 2 stores an object of a class that need not be importable here."""
    return f"c{module}\n{name}\n".encode() + b")\x81" + pickle.dumps(state, 2)[2:-1] + b"b"


def _mmengine() -> bytes:
    """By hand: the message hub keeps bound methods of its history buffer, which pickle stores as a `getattr`."""
    getattr_ = b"c__builtin__\ngetattr\n(cmmengine.logging.history_buffer\nHistoryBuffer\n" + text("mean") + b"tR"
    return torch_file(b"\x80\x02}" + text("mean") + getattr_ + b"s.")


def _deepspeed() -> bytes:
    """By hand: the loss scaler and the ZeRO stage in an optimizer's state."""
    scaler = _object_of("deepspeed.runtime.fp16.loss_scaler", "LossScaler", {"cur_scale": 1.0, "dynamic": False})
    stage = b"cdeepspeed.runtime.zero.config\nZeroStageEnum\nK\x01\x85R"
    return torch_file(b"\x80\x02}(" + text("loss_scaler") + scaler + text("zero_stage") + stage + b"u.")


def _torch(make: Callable[[], object], *, legacy: bool = False) -> Callable[[], bytes]:
    return lambda: _saved(make(), legacy=legacy)


def _clean(name: str, says: str, make: Callable[[], Files]) -> Sample:
    return Sample(name, says, make, answer="")


CLEAN = (
    _clean("model.pt", "a state dict", _torch(_weights)),
    _clean("model-legacy.pt", "the same in the format before torch 1.6", _torch(_weights, legacy=True)),
    _clean("network.pt", "a whole network of torch's own layers", _torch(_model)),
    _clean("training_state.pth", "a training state with AdamW, scheduler and scaler", _torch(_training_state)),
    _clean("optimizer.pt", "AdamW's state alone", _torch(lambda: _training_state()["optimizer"])),
    _clean("rng_state.pth", "random states, NumPy's among them", _torch(_random_states)),
    _clean("tensors.pt", "sparse, complex, bfloat16, sizes, devices", _torch(_tensors)),
    _clean("arguments.pt", "an argparse.Namespace", _torch(lambda: argparse.Namespace(lr=0.1))),
    _clean("metrics.pt", "NumPy numbers, arrays and a generator", _torch(_numpy_values)),
    _clean("containers.pkl", "containers of the standard library", lambda: pickle.dumps(_containers())),
    _clean("plain.pkl", "plain values", lambda: pickle.dumps({"epoch": 1, "loss": [0.5]})),
    _clean("protocol0.pkl", "the same in protocol 0", lambda: pickle.dumps({"epoch": 1, "loss": [0.5]}, 0)),
    _clean("last.ckpt", "Lightning's, with a Namespace among the hyper-parameters", _lightning),
    _clean("training_args.bin", "transformers' TrainingArguments", _training_arguments),
    _clean("omegaconf.ckpt", "an OmegaConf configuration", _omegaconf),
    _clean(".metadata", "torch.distributed.checkpoint's metadata, with the rest of the save beside it", _distributed),
    _clean("mmengine.pth", "mmengine's history: getattr on its own class (by hand)", _mmengine),
    _clean("zero_optim_states.pt", "DeepSpeed's loss scaler (by hand)", _deepspeed),
    _clean("array.npy", "an array of numbers", _npy),
    _clean("model.safetensors", "safetensors", _safetensors),
    _clean("config.json", "JSON", lambda: json.dumps({"hidden_size": 4}).encode()),
)
"""Some need a library that need not be there: making them raises ModuleNotFoundError."""
