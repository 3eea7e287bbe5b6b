"""Clean saves with the files and keys that trainers write, of trainers that have no layout here.

Each function writes one save of a model that was really trained into the directory that it is given.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import pickle
import random
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import nn

UPDATES = 20
SCALER = {
    "scale": 65536.0,
    "growth_factor": 2.0,
    "backoff_factor": 0.5,
    "growth_interval": 2000,
    "_growth_tracker": UPDATES,
}


def decaying(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1 - i / 100)


def trained(optimizer=torch.optim.AdamW, scheduler=decaying, **options):
    """A model, its optimizer and its scheduler after 20 updates; the scheduler decays over 100."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 4))
    optimizer = optimizer(model.parameters(), lr=1e-2, **options)
    scheduler = scheduler and scheduler(optimizer)
    for _ in range(UPDATES):
        optimizer.zero_grad()
        model(torch.randn(5, 6)).pow(2).mean().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return model.state_dict(), optimizer.state_dict(), scheduler and scheduler.state_dict()


def at_one_rate(optimizer=torch.optim.AdamW, **options):
    """A model and its optimizer after 20 updates without a scheduler."""
    return trained(optimizer, scheduler=None, **options)[:2]


def save(value, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)


def write_json(value, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def averaged(weights):
    return {name: 0.99 * value + 0.001 for name, value in copy.deepcopy(weights).items()}


def by_name(weights, optimizer):
    """The optimizer's state by the parameters' names, as DCP keeps it."""
    names = list(weights)
    groups = [{**g, "params": [names[i] for i in g["params"]]} for g in optimizer["param_groups"]]
    return {"state": {names[i]: s for i, s in optimizer["state"].items()}, "param_groups": groups}


def save_dcp(value, path):
    path.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that there is one process, and that `no_dist` is to go
        dcp.save(value, checkpoint_id=str(path), no_dist=True)


def areal(path):
    for name in ("step_info", "saver_info", "evaluator_info", "stats_logger_info", "checkpoint_info"):
        counters = {"epoch": 0, "epoch_step": 3, "global_step": 3, "steps_per_epoch": 10}
        write_json(counters, path / f"recover_info/{name}.json")
    (path / "recover_info/dataloader_info.pkl").write_bytes(pickle.dumps([{"_snapshot": 1}]))
    weights, _, _ = trained()
    write_json({"model_type": "x", "architectures": ["X"]}, path / "recover_checkpoint/config.json")
    save_file(weights, path / "recover_checkpoint/model.safetensors", {"format": "pt"})


def audiocraft(path):
    weights, optimizer = at_one_rate()
    state = {"history": [{"train": {"loss": 0.3}}] * 3, "xp.cfg": {"lr": 1e-2}, "xp.sig": "a1b2"}
    save({**state, "model": weights, "optimizer": optimizer, "best_state": {"model": weights}}, path / "checkpoint.th")


def automodel(path):
    weights, optimizer, scheduler = trained()
    (path / "model").mkdir(parents=True)
    save_file(weights, path / "model/shard-00001-model-00001-of-00001.safetensors")
    save_dcp({"optim": by_name(weights, optimizer), "scheduler": scheduler}, path / "optim")
    write_json({"train_loss": 0.4}, path / "losses.json")
    save({"step": 20, "epoch": 0}, path / "step_scheduler.pt")
    save({"_snapshot": {}}, path / "dataloader/dataloader_dp_rank_0.pt")
    states = {
        "random_rng_state": random.getstate(),
        "np_rng_state": np.random.get_state(),  # noqa: NPY002
        "torch_rng_state": torch.get_rng_state(),
        "cuda_rng_state": [],
    }
    save(states, path / "rng/rng_dp_rank_0.pt")


def basicsr(path):
    weights, optimizer, scheduler = trained()
    state = {"epoch": 1, "iter": 20, "optimizers": [optimizer], "schedulers": [scheduler]}
    save(state, path / "training_states/20.state")
    save({"params": weights, "params_ema": averaged(weights)}, path / "models/net_g_20.pth")


def cleanrl(path):
    save(trained()[0], path / "ppo.cleanrl_model")


def colossalai(path):
    weights, optimizer, scheduler = trained()
    shard, size = "model-00001-of-00001.safetensors", sum(v.nbytes for v in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(weights, shard)}
    write_json(index, path / "modeling/model.safetensors.index.json")
    save_file(weights, path / "modeling" / shard, {"format": "pt"})
    write_json({"model_type": "x", "architectures": ["X"]}, path / "modeling/config.json")
    save(optimizer["state"], path / "optimizer/pytorch_optim-00001.bin")
    save(optimizer["param_groups"], path / "optimizer/pytorch_optim_group.bin")
    places = dict.fromkeys(map(str, optimizer["state"]), "pytorch_optim-00001.bin")
    index = {"metadata": {"param_groups": "pytorch_optim_group.bin", "total_size": 1}, "weight_map": places}
    write_json(index, path / "optimizer/pytorch_optim.bin.index.json")
    save(scheduler, path / "lr_scheduler")
    write_json({"epoch": 1, "step": 20, "sample_start_index": 160}, path / "running_states.json")


def coqui(path):
    weights, optimizer = at_one_rate()
    state = {"config": {"lr": 0.1, "epochs": 100}, "model": weights, "optimizer": optimizer, "scaler": None}
    save({**state, "step": 20, "epoch": 3, "date": "2 November", "model_loss": 0.4}, path / "checkpoint_20.pth")
    for copied in ("best_model_20.pth", "best_model.pth"):
        shutil.copy(path / "checkpoint_20.pth", path / copied)
    write_json({"model": "vits"}, path / "config.json")


def convnext(path):
    weights, optimizer = at_one_rate()
    args = argparse.Namespace(lr=0.1, epochs=400)
    state = {"model": weights, "optimizer": optimizer, "epoch": 2, "scaler": SCALER, "args": args}
    save({**state, "model_ema": averaged(weights)}, path / "checkpoint-2.pth")


def deepmd(path):
    weights, optimizer = at_one_rate()
    extra = {"train_infos": {"lr": 1e-3, "step": 19}, "model_params": {"a": 1}}
    save({"model": {**weights, "_extra_state": extra}, "optimizer": optimizer}, path / "model.ckpt-20.pt")
    (path / "model.ckpt.pt").symlink_to("model.ckpt-20.pt")
    (path / "checkpoint").write_text("model.ckpt-20.pt")


def deim(path):
    weights, optimizer, scheduler = trained()
    state = {"date": "2026-01-01", "last_epoch": 2, "model": weights, "criterion": {}, "postprocessor": {}}
    ema = {"module": averaged(weights), "updates": 20, "warmups": 1000}
    warmup = {"warmup_duration": 500, "last_step": 20}
    rest = {"optimizer": optimizer, "lr_scheduler": scheduler, "lr_warmup_scheduler": warmup, "scaler": SCALER}
    save({**state, "ema": ema, **rest}, path / "last.pth")


def diffsynth(path):
    save_file(
        {"a.lora_A.default.weight": torch.randn(4, 8), "a.lora_B.default.weight": torch.randn(8, 4)},
        path / "epoch-0.safetensors",
    )


def diffusion_pipe(path):
    weights, optimizer, scheduler = trained()
    layers = sorted({name.partition(".")[0] for name in weights})
    for number, layer in enumerate(layers):
        tensors = {n.partition(".")[2]: v for n, v in weights.items() if n.startswith(layer)}
        save(tensors, path / f"layer_{number:02d}-model_states.pt")
    absent = ("module", "param_shapes", "frozen_param_shapes", "frozen_param_fragments", "data_sampler", "random_ltd")
    counters = {"skipped_steps": 0, "global_steps": 20, "global_samples": 20, "step": 20, "examples": 20}
    state = {
        **dict.fromkeys(absent),
        **counters,
        "optimizer": optimizer,
        "lr_scheduler": scheduler,
        "buffer_names": [],
        "shared_params": {},
        "sparse_tensor_module_names": set(),
        "dp_world_size": 1,
        "mp_world_size": 1,
        "ds_config": {"train_batch_size": 1},
        "ds_version": "0.17",
        "custom_loader": {"epoch": 1, "num_batches_pulled": 20},
    }
    save(state, path / "mp_rank_00_model_states.pt")


def dinov2(path):
    weights, optimizer = at_one_rate()
    both = {f"student.{n}": v for n, v in weights.items()} | {f"teacher.{n}": v for n, v in averaged(weights).items()}
    save({"model": both, "optimizer": optimizer, "iteration": 19}, path / "model_0000019.rank_0.pth")
    (path / "last_checkpoint.rank_0").write_text("model_0000019.rank_0.pth")


def dinov3(path):
    weights, optimizer = at_one_rate()
    save_dcp({"iteration": 19, "model": weights, "optimizer": by_name(weights, optimizer)}, path / "ckpt/19")


def dreamer(path):
    weights, optimizer = at_one_rate()
    state = {"model_opt": optimizer, "actor_opt": optimizer}
    save({"agent_state_dict": weights, "optims_state_dict": state}, path / "latest.pt")


def edm2(path):
    weights, optimizer = at_one_rate()
    state = {"cur_nimg": 20480, "total_elapsed_time": 12.0}
    save({"net": weights, "optimizer_state": optimizer, "state": state}, path / "training-state-0000020.pt")


def equinox(path):
    with (path / "model.eqx").open("wb") as file:
        file.write(b'{"width": 8}\n')
        np.save(file, np.ones((3, 4), "f4"))
        np.save(file, np.ones(3, "f4"))


def f5_tts(path):
    weights, optimizer, scheduler = trained()
    ema = {f"ema_model.{n}": v for n, v in averaged(weights).items()}
    state = {
        "model_state_dict": weights,
        "optimizer_state_dict": optimizer,
        "ema_model_state_dict": {**ema, "initted": torch.tensor(True), "step": torch.tensor(20)},
        "scheduler_state_dict": scheduler,
        "update": 20,
    }
    save(state, path / "model_last.pt")


def fairchem(path):
    weights, optimizer = at_one_rate()
    unit = {"model": weights, "optimizer": optimizer, "epoch": 1}
    save_dcp({"unit_state": unit, "config": {"a": 1}}, path / "checkpoints/step_20")
    (path / "checkpoints/step_20/train_state.yaml").write_text("step: 20\n")
    save({"model": weights}, path / "checkpoints/step_20/inference_ckpt.pt")


def fastai(path):
    weights, _, _ = trained()
    options = {"hypers": [{"lr": 0.1, "mom": 0.9}], "state": [{"grad_avg": torch.zeros(3), "step": 20}]}
    save({"model": weights, "opt": options}, path / "models/m.pth")


def funasr(path):
    weights, optimizer, scheduler = trained()
    state = {"epoch": 1, "state_dict": weights, "optimizer": optimizer, "scheduler": scheduler, "scaler_state": SCALER}
    counters = {"step": 20, "step_in_epoch": 20, "data_split_i": 0, "data_split_num": 1, "batch_total": 20}
    for name in ("model.pt", "model.pt.ep1", "model.pt.best"):
        save({**state, **counters, "saved_ckpts": {"model.pt.ep1": 0.5}}, path / name)


def gan(path):
    generator, discriminator = at_one_rate(), at_one_rate()
    state = {"G": generator[0], "D": discriminator[0], "G_opt": generator[1], "D_opt": discriminator[1]}
    save({**state, "step": 20}, path / "gan_20.pt")


def gpt_sovits_half(path):
    weights = {n: v.half() for n, v in trained()[0].items()}
    save({"weight": weights, "config": {"a": 1}, "info": "GPT-e5"}, path / "x-e5.ckpt")


def imagenet(path):
    weights, optimizer = at_one_rate(torch.optim.SGD, momentum=0.9)
    state = {"epoch": 2, "arch": "resnet18", "state_dict": {f"module.{n}": v for n, v in weights.items()}}
    rest = {"best_acc1": torch.tensor(12.3), "optimizer": optimizer}
    save({**state, **rest}, path / "checkpoint.pth.tar")
    shutil.copy(path / "checkpoint.pth.tar", path / "model_best.pth.tar")


def mlx_lm(path):
    tensors = {f"model.layers.0.self_attn.q_proj.lora_{n}": torch.randn(s) for n, s in (("a", (8, 4)), ("b", (4, 8)))}
    for name in ("adapters.safetensors", "0000100_adapters.safetensors"):
        save_file(tensors, path / name)
    options = {"rank": 4, "scale": 20.0, "dropout": 0.0}
    write_json({"fine_tune_type": "lora", "lora_parameters": options, "iters": 100}, path / "adapter_config.json")


def nerfstudio(path):
    weights, optimizer, scheduler = trained()
    pipeline = {f"_model.{n}": v for n, v in weights.items()}
    parts = {"optimizers": {"fields": optimizer, "camera_opt": optimizer}, "schedulers": {"fields": scheduler}}
    save({"step": 19, "pipeline": pipeline, **parts, "scalers": SCALER}, path / "step-000000019.ckpt")


def physicsnemo(path):
    weights, optimizer, scheduler = trained()
    parts = {"optimizer_state_dict": optimizer, "scheduler_state_dict": scheduler, "scaler_state_dict": SCALER}
    save({**parts, "static_capture_state_dict": {}, "epoch": 3, "metadata": {}}, path / "checkpoint.0.3.pt")
    packed = io.BytesIO()
    torch.save(weights, packed)
    with zipfile.ZipFile(path / "FNO.0.3.mdlus", "w") as archive:
        archive.writestr("model.pt", packed.getvalue())
        archive.writestr("args.json", "{}")
        archive.writestr("metadata.json", "{}")


def pykeen(path):
    weights, optimizer = at_one_rate()
    states = {"random_state": random.getstate(), "torch_random_state": torch.get_rng_state(), "cuda_random_state": None}
    state = {"epoch": 2, "loss": [0.5, 0.4], "model_state_dict": weights, "optimizer_state_dict": optimizer}
    save({**state, **states, "checksum": "abc", "random_seed": 1, "lr_scheduler_state_dict": None}, path / "pykeen.pt")


def recbole(path):
    weights, optimizer = at_one_rate()
    state = {"config": {"a": 1}, "epoch": 3, "cur_step": 0, "best_valid_score": 0.1, "state_dict": weights}
    save({**state, "other_parameter": None, "optimizer": optimizer}, path / "BPR-Nov-01-2026.pth")


def rl_games(path):
    weights, optimizer = at_one_rate()
    state = {"model": weights, "epoch": 200, "frame": 6553600, "optimizer": optimizer, "env_state": None}
    save({**state, "last_mean_rewards": 12.5}, path / "nn/last_Ant_ep_200_rew_12.5.pth")


def rllib(path):
    write_json(
        {"type": "Algorithm", "checkpoint_version": "2.1", "ray_version": "2.60.0"}, path / "rllib_checkpoint.json"
    )
    module = path / "learner_group/learner/rl_module/default_policy/module_state.pkl"
    module.parent.mkdir(parents=True)
    module.write_bytes(pickle.dumps({n: v.numpy() for n, v in trained()[0].items()}))
    for name in ("algorithm_state.pkl", "class_and_ctor_args.pkl"):
        (path / name).write_bytes(pickle.dumps({"a": 1, "b": np.float32(2)}))


def rvc(path):
    for name in ("G_2333333.pth", "D_2333333.pth"):
        weights, optimizer = at_one_rate()
        save({"model": weights, "iteration": 3, "optimizer": optimizer, "learning_rate": 1e-2}, path / name)


def sample_factory(path):
    weights, optimizer = at_one_rate()
    state = {"train_step": 20, "env_steps": 40960, "best_performance": -1e9, "model": weights, "optimizer": optimizer}
    save({**state, "curr_lr": 1e-2}, path / "checkpoint_p0/checkpoint_000000020_40960.pth")


def simpletuner(path):
    weights, optimizer, scheduler = trained()
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    save(optimizer, path / "optimizer.bin")
    save(scheduler, path / "scheduler.bin")
    states = {"random_state": random.getstate(), "torch_manual_seed": torch.get_rng_state()}
    save({"step": 20, **states, "numpy_random_seed": np.random.get_state()}, path / "random_states_0.pkl")  # noqa: NPY002
    counters = {"global_step": 20, "epoch_step": 20, "epoch": 1, "exhausted_backends": [], "repeats": {}}
    write_json(counters, path / "training_state.json")


def skorch(path):
    weights, optimizer = at_one_rate()
    for name, value in (("params", weights), ("optimizer", optimizer), ("criterion", {})):
        save(value, path / f"{name}.pt")
    write_json([{"epoch": 1, "batches": [{"train_loss": 1.0}]}], path / "history.json")


def tacotron(path):
    weights, optimizer = at_one_rate()
    save(
        {"iteration": 20, "state_dict": weights, "optimizer": optimizer, "learning_rate": 1e-2}, path / "checkpoint_20"
    )


def three_d_gaussians(path):
    points = nn.Parameter(torch.randn(10, 3))
    optimizer = torch.optim.Adam([{"params": [points], "lr": 0.1, "name": "xyz"}], lr=0.0, eps=1e-15)
    points.sum().backward()
    optimizer.step()
    tensors = [torch.randn(10, 3) for _ in range(8)]
    save(((3, points, *tensors, optimizer.state_dict(), 5.0), 7000), path / "chkpnt7000.pth")


def wenet(path):
    save(trained()[0], path / "epoch_1.pt")
    (path / "epoch_1.yaml").write_text("epoch: 1\nlrs: [0.1]\nstep: 20\n")


def xtuner(path):
    weights, optimizer, scheduler = trained()
    folder = path / "checkpoints/ckpt-step-20"
    save_dcp({"model": weights, "optimizer": by_name(weights, optimizer)}, folder / "weights")
    save({"sampler": {"epoch": 0, "step": 20}}, folder / "dataloader")
    save(scheduler, folder / "lr_scheduler")
    write_json({"cur_step": 20, "cur_epoch": 1, "total_consumed_tokens": 2000}, folder / "train_state.json")
    (folder / "trainer_config.bin").write_bytes(pickle.dumps({"a": 1}))
    write_json({"exps": [{"checkpoint_list": [str(folder)], "cur_step": 20}]}, path / ".xtuner")


OPTIMIZERS = {
    name: getattr(torch.optim, name)
    for name in (
        "Adafactor",
        "Adagrad",
        "Adadelta",
        "Adam",
        "Adamax",
        "ASGD",
        "NAdam",
        "RAdam",
        "RMSprop",
        "Rprop",
        "SGD",
    )
}

_LRS = torch.optim.lr_scheduler
SCHEDULERS = {
    "ConstantLR": _LRS.ConstantLR,
    "CosineAnnealingLR": lambda o: _LRS.CosineAnnealingLR(o, 100),
    "CosineAnnealingWarmRestarts": lambda o: _LRS.CosineAnnealingWarmRestarts(o, 7),
    "ChainedScheduler": lambda o: _LRS.ChainedScheduler([_LRS.ConstantLR(o, 0.1, 5), _LRS.ExponentialLR(o, 0.99)]),
    "CyclicLR": lambda o: _LRS.CyclicLR(o, 0.001, 0.1, step_size_up=5, cycle_momentum=False),
    "ExponentialLR": lambda o: _LRS.ExponentialLR(o, 0.99),
    "LinearLR": lambda o: _LRS.LinearLR(o, total_iters=10),
    "MultiStepLR": lambda o: _LRS.MultiStepLR(o, [4, 9]),
    "OneCycleLR": lambda o: _LRS.OneCycleLR(o, 0.1, total_steps=100),
    "PolynomialLR": lambda o: _LRS.PolynomialLR(o, 100),
    "SequentialLR": lambda o: _LRS.SequentialLR(
        o, [_LRS.LinearLR(o, 0.1, total_iters=5), _LRS.CosineAnnealingLR(o, 95)], [5]
    ),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.05),
}


def one_file(path: Path, *parts):
    """What most people write: weights, optimizer, scheduler and a counter in one file."""
    weights, optimizer, scheduler = parts
    save({"model": weights, "optimizer": optimizer, "scheduler": scheduler, "step": UPDATES}, path / "ckpt.pt")
