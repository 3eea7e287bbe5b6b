"""What trainers call things: files of the plain layout, keys in its state, and the marks of other trainers' layouts."""

from __future__ import annotations

import re

CANONICAL_STEMS = ("training_state", "train_state")
SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
STATE_FILES = tuple(f"{stem}{suffix}" for stem in CANONICAL_STEMS for suffix in SUFFIXES)
ONE_FILES = tuple(
    f"{stem}{suffix}"
    for stem in ("checkpoint", "ckpt", "state", "last", "latest", "checkpoint_last", "last_checkpoint", "latest_checkpoint")
    for suffix in (".pt", ".pth", ".pth.tar")
)  # fmt: skip
JSON_STATES = ("training_state.json", "train_state.json", "progress.json", "state.json")

PART_FILES = {
    "optimizer": tuple(f"{s}{x}" for s in ("optimizer", "optim", "optimizer_state") for x in (".pt", ".pth", ".bin")),
    "scheduler": tuple(f"{s}{x}" for s in ("scheduler", "lr_scheduler") for x in (".pt", ".pth", ".bin")),
    "scaler": tuple(f"{s}{x}" for s in ("scaler", "grad_scaler") for x in (".pt", ".pth", ".bin")),
    "rng": tuple(f"{s}{x}" for s in ("rng_state", "rng", "random_states") for x in (".pt", ".pth", ".pkl")),
}

EXPORTS = (
    "generation_config.json", "tokenizer_config.json", "tokenizer.json", "preprocessor_config.json", "processor_config.json",
    "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.bin",
)  # fmt: skip
"""What `save_pretrained` writes beside weights that are meant to be loaded; a plain loop that saves a state does not."""

WEIGHT_FILE = re.compile(
    r".+\.safetensors(\.index\.json)?|pytorch_model.*\.bin(\.index\.json)?"
    r"|(adapter_model|model|weights|net|network|model_weights|model_state)(-\d+-of-\d+)?\.(bin|pt|pth)"
)
LORA = re.compile(r"(?:^|[._])lora_(?:a|b|down|up|mid|magnitude_vector)\b|\.(?:alpha|dora_scale)$", re.IGNORECASE)
SHARD = re.compile(r".+-\d+-of-\d+\..+")

OPTIMIZER = (
    "optimizer_state_dict", "optimizer", "optimizer_state", "optim_state_dict", "optim", "optim_state", "opt_state_dict",
    "opt_state", "optimiser_state_dict", "optimiser", "optimizers", "optimizer_states", "optimizer_dict",
)  # fmt: skip
SCHEDULER = (
    "scheduler_state_dict", "scheduler", "lr_scheduler_state_dict", "lr_scheduler", "scheduler_state",
    "lr_scheduler_state", "lr_sched", "sched_state_dict", "sched", "schedulers", "lr_schedulers", "scheduler_dict",
)  # fmt: skip
SCALER = (
    "scaler_state_dict", "scaler", "grad_scaler_state_dict", "grad_scaler", "scaler_state", "amp_scaler",
    "amp_state_dict", "amp", "loss_scaler",
)  # fmt: skip
RNG = ("rng_state", "rng_states", "rng", "random_state", "random_states", "generator_state")
EMA = ("ema_state_dict", "ema", "ema_model", "model_ema", "state_dict_ema", "ema_params", "shadow_params")
WEIGHTS = (
    "model_state_dict", "model", "state_dict", "net", "weights", "model_state", "net_state_dict", "network", "module",
    "model_dict", "params", "models",
)  # fmt: skip

EPOCH = (
    "epoch",
    "current_epoch",
    "cur_epoch",
    "epoch_num",
    "epoch_idx",
    "epochs_done",
    "epochs_run",
    "epochs_completed",
)
LOCAL_STEP = ("step_in_epoch", "batch_in_epoch", "iter_in_epoch", "batch_idx", "batch_index", "current_batch")
AMBIGUOUS_STEP = (
    "iteration", "iterations", "iter", "it", "n_iter", "current_iter", "cur_iter", "current_step", "train_step", "steps",
    "step_num", "update", "updates",
)  # fmt: skip
"""Counters of the epoch or of all training, of updates or of rounds of several: only other counters can tell."""
STEP = ("step", *LOCAL_STEP, *AMBIGUOUS_STEP)
TOTAL_BATCHES = (
    "total_batches", "num_batches", "batches_per_epoch", "n_batches", "steps_per_epoch", "iters_per_epoch",
    "num_steps_per_epoch", "num_batches_per_epoch", "iterations_per_epoch", "dataloader_len", "epoch_length",
)  # fmt: skip
GLOBAL_STEP = (
    "global_step", "step_count", "iter_num", "global_steps", "num_updates", "global_iter", "global_iteration", "optimizer_steps",
    "trained_steps", "completed_steps",
)  # fmt: skip
ACCUMULATION = (
    "gradient_accumulation_steps", "gradient_accumulation", "grad_accumulation_steps", "accumulation_steps",
    "accumulate_grad_batches", "grad_accum_steps", "grad_accum", "accum_steps", "accum_iter", "update_freq",
)  # fmt: skip
TOTAL_EPOCHS = ("total_epochs", "num_epochs", "max_epochs", "epochs", "n_epochs", "num_train_epochs", "train_epochs")
TOTAL_STEPS = (
    "total_steps", "max_steps", "max_iters", "total_iters", "max_iter", "num_train_steps", "num_training_steps",
    "max_train_steps", "total_training_steps", "total_updates", "max_updates", "train_iters",
)  # fmt: skip

COUNTERS = {
    "epoch": EPOCH, "step": STEP, "total_batches": TOTAL_BATCHES, "global_step": GLOBAL_STEP,
    "gradient_accumulation": ACCUMULATION, "total_epochs": TOTAL_EPOCHS, "total_steps": TOTAL_STEPS,
}  # fmt: skip
PLANS = {"gradient_accumulation": ACCUMULATION, "total_epochs": TOTAL_EPOCHS, "total_steps": TOTAL_STEPS}
COUNTER_GROUPS = ("progress", "train_state", "training_state", "trainer_state", "trainer", "counters", "meta", "state")
CONFIGS = (
    "config", "args", "hparams", "hyper_parameters", "hyperparameters", "cfg", "train_config", "training_config",
    "train_args", "training_args", "training", "train", "trainer", "opt",
)  # fmt: skip
MODEL_CONFIGS = ("model_config", "model_args", "config", "model_cfg", "cfg")
COUNTER_WORDS = ("step", "epoch", "iter", "update", "batch", "seen", "token", "sample", "progress", "nimg", "history")

PARTS = re.compile(
    r"(optimizer|optim|optimizer_state|scheduler|lr_scheduler)\.(pt|pth|bin)|(rng|random)_states?.*\.(pth|pkl)|training_args\.bin|.*\.ckpt"
)
"""Parts of a training state that lie in files of their own, by the names that many trainers give them."""
