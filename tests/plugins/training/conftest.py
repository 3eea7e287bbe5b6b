"""Small trainings that really happen, and ways in which people save them."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ckpt_rules.engine import run as run_engine
from ckpt_rules.finding import Severity
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.ruleset.resolved import Origin, ResolvedRuleset, SelectedRule
from ckpt_rules.storage import LocalStorage
from tests.plugins.training.contents import OPT, STATE, STEPS, findings, random_states


class Net(nn.Module):
    """An embedding, two linear layers and a head that may be tied to the embedding."""

    def __init__(self, *, tied=False):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.first = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.second = nn.Linear(6, 4)
        self.head = nn.Linear(4, 5, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.second(torch.relu(self.norm(self.first(self.embed(x))))))


@dataclass
class Run:
    """A training up to where it was interrupted. `epoch` is 1-based, the one under way or just completed."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: object
    scaler: object
    batches_per_epoch: int
    epoch: int = 0
    step: int = 0
    batches: int = 0
    updates: int = 0
    losses: list = field(default_factory=list)


def _batch(model, generator, dtype):
    x = torch.randint(5, (3, 2), generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "autocast"):
        return nn.functional.cross_entropy(model(x).flatten(0, 1).float(), x.flatten())


def train(
    *,
    optimizer=torch.optim.AdamW,
    scheduler=None,
    per="update",
    batches=7,
    epochs=2,
    stop=None,
    accumulate=1,
    rest="step",
    scaler=False,
    model=None,
    dtype=None,
    params=None,
):
    """Train for whole epochs, or until `stop = (epoch, step)`.

    per:  when the scheduler steps: `update`, `batch` or `epoch`
    rest: what becomes of an epoch's last, partial group of batches: `step` makes an update, `drop` forgets it, `carry`
          continues with it in the next epoch
    """
    torch.manual_seed(7)
    generator = torch.Generator().manual_seed(7)
    model = model or Net()
    if dtype == "bfloat16":
        model = model.to(torch.bfloat16)
    opt = optimizer([p for p in model.parameters() if p.requires_grad] if params is None else params(model))
    run = Run(model, opt, scheduler and scheduler(opt), torch.amp.GradScaler("cpu", enabled=scaler), batches)
    pending = 0
    for epoch in range(1, epochs + 1):
        run.epoch = epoch
        for step in range(batches):
            run.scaler.scale(_batch(model, generator, dtype) / accumulate).backward()
            pending += 1
            run.batches += 1
            last = step == batches - 1
            if pending == accumulate or (last and rest == "step"):
                _update(run, per)
                pending = 0
            if last and rest == "drop" and pending:
                opt.zero_grad()
                pending = 0
            if per == "batch" and run.scheduler:
                run.scheduler.step()
            if stop == (epoch, step + 1):
                run.step = step + 1
                return run
        if per == "epoch" and run.scheduler:
            run.scheduler.step(
                *([1.0] if isinstance(run.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else [])
            )
    return run


def _update(run, per):
    def closure():
        run.optimizer.zero_grad()
        loss = _batch(run.model, None, None)
        loss.backward()
        return loss

    if isinstance(run.optimizer, torch.optim.LBFGS):
        run.optimizer.step(closure)
    else:
        run.scaler.step(run.optimizer)
        run.scaler.update()
    run.optimizer.zero_grad()
    run.updates += 1
    if per == "update" and run.scheduler:
        run.scheduler.step()


def parts(run):
    """The states under their canonical keys."""
    return {
        "optimizer_state_dict": run.optimizer.state_dict(),
        "scheduler_state_dict": run.scheduler.state_dict() if run.scheduler else None,
        "scaler_state_dict": run.scaler.state_dict(),
        "rng_state": {"python": random.getstate(), "torch": torch.get_rng_state()},
    }


def save_canonical(run, path, **changes):
    """`training_state.pth`, `config.json` and `model.safetensors`."""
    path.mkdir(parents=True)
    tensors = {k: v.contiguous().clone() for k, v in run.model.state_dict().items()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps({"hidden": 4}))
    state = {"epoch": run.epoch, "step": run.step, "total_batches": run.batches_per_epoch, **parts(run), **changes}
    torch.save({k: v for k, v in state.items() if v is not ...}, path / "training_state.pth")
    return path


def save_one_file(path, state, name="checkpoint.pt"):
    """Everything in one file."""
    path.mkdir(parents=True)
    torch.save(state, path / name)
    return path


def verify_training(path):
    """A report of every rule of the plugins that look at the training state."""
    plugins = installed_plugins()
    assert not plugins.broken
    rules = tuple(
        SelectedRule(rule(), plugin.name, None, Origin("test"), {})
        for rule, plugin in plugins.rules.values()
        if plugin.name in ("training", "safety")
    )
    assert len(rules) == 39
    return run_engine(LocalStorage(path), ResolvedRuleset("test", "", False, rules, (), plugins))


def assert_silent(path, *, infos=None):
    """No rule says anything but information, and none crashes or is kept from its work by a damaged file."""
    report = verify_training(path)
    said = [f"{f.rule}: {f.message} ({f.place})" for f in report.findings if f.severity is not Severity.INFO]
    assert said == []
    assert not [o.crash.traceback for o in report.outcomes if o.crash]
    assert not [f"{o.rule}: {o.reason}" for o in report.outcomes if o.blocked_by]
    assert not report.notices
    if infos is not None:
        assert sorted(f.rule for f in report.findings) == sorted(infos)
    return report


@pytest.fixture
def kit():
    """The functions of this file, for tests that train and save by themselves."""
    return SimpleNamespace(
        Net=Net,
        train=train,
        parts=parts,
        save_canonical=save_canonical,
        save_one_file=save_one_file,
        verify=verify_training,
        assert_silent=assert_silent,
        cosine=lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda s: (1 + math.cos(s / 40)) / 2),
    )


@pytest.fixture
def saved(make_checkpoint, tmp_path):
    """`saved("optimizer.pt", change)`: findings on a Trainer's save whose one file was changed; None leaves it as it is."""

    def build(name=None, change=None):
        ck = make_checkpoint(scheduler="lambda")
        state = torch.load(ck / STATE, weights_only=False)
        out = tmp_path / f"checkpoint-{STEPS}"
        ck.path.rename(out)
        (out / STATE).unlink()
        files = {
            "optimizer.pt": state[OPT],
            "scheduler.pt": state["scheduler_state_dict"],
            "rng_state.pth": random_states("python", "numpy", "cpu"),
        }
        for file, whole in files.items():
            value = change(whole) if file == name else whole
            if value is not ...:
                torch.save(value, out / file)
        told = {"global_step": STEPS, "epoch": 2.0, "max_steps": 100, "num_train_epochs": 10, "log_history": []}
        (out / "trainer_state.json").write_text(json.dumps({**told, "train_batch_size": 2, "save_steps": 10}))
        return findings(out)

    return build


@pytest.fixture
def accelerated(make_checkpoint, tmp_path):
    """The same of a save by Accelerate."""

    def build(name=None, change=None):
        ck = make_checkpoint(scheduler="lambda")
        state = torch.load(ck / STATE, weights_only=False)
        (ck / STATE).unlink()
        files = {
            "optimizer.bin": state[OPT],
            "scheduler.bin": state["scheduler_state_dict"],
            "random_states_0.pkl": {
                "step": 0,
                **random_states("random_state", "numpy_random_seed", "torch_manual_seed"),
            },
        }
        for file, value in files.items():
            torch.save(change(value) if file == name else value, ck / file)
        return findings(ck.path)

    return build
