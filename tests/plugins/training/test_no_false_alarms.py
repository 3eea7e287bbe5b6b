"""Clean checkpoints from real trainings, in the ways in which people save them: no rule finds fault with any."""

from __future__ import annotations

import argparse
import json

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

OPTIMIZERS = {
    "AdamW": torch.optim.AdamW,
    "Adam": torch.optim.Adam,
    "AMSGrad": lambda p: torch.optim.AdamW(p, amsgrad=True),
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Adamax": torch.optim.Adamax,
    "Adagrad": torch.optim.Adagrad,
    "Adadelta": torch.optim.Adadelta,
    "RMSprop": lambda p: torch.optim.RMSprop(p, momentum=0.9, centered=True),
    "Rprop": torch.optim.Rprop,
    "ASGD": torch.optim.ASGD,
    "Adafactor": torch.optim.Adafactor,
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "tensor lr": lambda p: torch.optim.AdamW(p, lr=torch.tensor(1e-3)),
    "LBFGS": torch.optim.LBFGS,
}
SCHEDULERS = {
    "none": None,
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda s: 1 / (1 + s)),
    "StepLR": lambda o: schedulers.StepLR(o, 3),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [2, 5]),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 100),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 7),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.1, 100, cycle_momentum=False),
    "LinearLR": schedulers.LinearLR,
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, 100),
    "ConstantLR": schedulers.ConstantLR,
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 0.01, 0.1, cycle_momentum=False),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o), schedulers.CosineAnnealingLR(o, 100)], [4]
    ),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler(
        [schedulers.LinearLR(o), schedulers.ExponentialLR(o, 0.9)], optimizer=o
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name, kit, tmp_path):
    run = kit.train(optimizer=OPTIMIZERS[name], scheduler=kit.cosine)
    kit.assert_silent(kit.save_canonical(run, tmp_path / "ck"), infos=[])


@pytest.mark.filterwarnings(
    "ignore:Detected call of `lr_scheduler.step"
)  # accumulating, the first batch makes no update
@pytest.mark.parametrize("per", ["update", "batch", "epoch"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(name, per, kit, tmp_path):
    run = kit.train(scheduler=SCHEDULERS[name], per=per, accumulate=2, stop=(2, 4))
    kit.assert_silent(kit.save_canonical(run, tmp_path / "ck", gradient_accumulation_steps=2), infos=[])


def test_plateau(kit, tmp_path):
    run = kit.train(scheduler=schedulers.ReduceLROnPlateau, per="epoch")
    kit.assert_silent(kit.save_canonical(run, tmp_path / "ck"), infos=[])


@pytest.mark.parametrize("stop", [None, (1, 1), (1, 6), (2, 1), (3, 3), (3, 6)], ids=str)
@pytest.mark.parametrize("rest", ["step", "drop", "carry"])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 5])
def test_accumulation(accumulate, rest, stop, kit, tmp_path):
    run = kit.train(scheduler=kit.cosine, accumulate=accumulate, rest=rest, stop=stop, epochs=3)
    recorded = {"gradient_accumulation_steps": accumulate} if accumulate > 1 else {}
    path = kit.save_canonical(run, tmp_path / "counted", global_step=run.updates, **recorded)
    kit.assert_silent(path, infos=[])
    kit.assert_silent(kit.save_canonical(run, tmp_path / "batches", global_step=run.batches, **recorded), infos=[])
    kit.assert_silent(kit.save_canonical(run, tmp_path / "none", **recorded), infos=[])


@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize("witness", ["global_step", "scheduler"])
def test_accumulation_that_only_a_second_counter_tells(witness, accumulate, kit, tmp_path):
    run = kit.train(scheduler=kit.cosine if witness == "scheduler" else None, batches=32, accumulate=accumulate)
    counted = {"global_step": run.updates} if witness == "global_step" else {}
    report = kit.assert_silent(kit.save_canonical(run, tmp_path / "ck", **counted), infos=[])
    assert report.resume == "epoch 2 is complete; training starts epoch 3 at its first batch"


@pytest.mark.parametrize("stop", [(1, 1), (2, 3), (3, 30)], ids=str)
def test_finished_epochs_are_counted(stop, kit, tmp_path):
    run = kit.train(scheduler=kit.cosine, batches=32, epochs=3, stop=stop)
    path = kit.save_canonical(run, tmp_path / "ck", epoch=run.epoch - 1, global_step=run.updates)
    report = kit.assert_silent(path, infos=[])
    assert report.resume.startswith(f"epoch {stop[0]} continues")


def test_nothing_is_trained_yet(kit, tmp_path):
    run = kit.train(scheduler=kit.cosine, epochs=0)
    kit.assert_silent(kit.save_canonical(run, tmp_path / "ck", epoch=0, global_step=0), infos=[])


def test_scaler_in_use(kit, tmp_path):
    run = kit.train(scheduler=kit.cosine, scaler=True)
    kit.assert_silent(kit.save_canonical(run, tmp_path / "ck"), infos=[])


def test_scaler_skipped_some_updates(kit, tmp_path):
    run = kit.train(scheduler=kit.cosine, scaler=True, batches=40, epochs=3)
    for state in run.optimizer.state.values():
        state["step"] -= 3
    kit.assert_silent(kit.save_canonical(run, tmp_path / "ck", global_step=run.batches), infos=[])


def test_counters_are_tensors_and_numpy_numbers(kit, tmp_path):
    np = pytest.importorskip("numpy")
    run = kit.train(scheduler=kit.cosine, stop=(2, 3))
    kit.assert_silent(
        kit.save_canonical(run, tmp_path / "ck", epoch=torch.tensor(2), step=3.0, global_step=torch.tensor(10.0)),
        infos=[],
    )
    report = kit.verify(kit.save_canonical(run, tmp_path / "numpy", epoch=np.int64(2), step=np.float64(3)))
    assert {f.rule for f in report.findings} == {"state/needs-unsafe-load"}


def test_no_scheduler_and_no_scaler_said_explicitly(kit, tmp_path):
    run = kit.train()
    path = kit.save_canonical(run, tmp_path / "ck", scheduler_state_dict=None, scaler_state_dict=None)
    kit.assert_silent(path, infos=[])


def test_frozen_parameters(kit, tmp_path):
    model = kit.Net()
    model.embed.requires_grad_(requires_grad=False)
    model.first.requires_grad_(requires_grad=False)
    run = kit.train(model=model, scheduler=kit.cosine)
    kit.assert_silent(kit.save_canonical(run, tmp_path / "ck"), infos=[])
    model = kit.Net()
    model.embed.requires_grad_(requires_grad=False)
    run = kit.train(model=model, params=lambda m: list(m.parameters()), scheduler=kit.cosine)
    kit.assert_silent(kit.save_canonical(run, tmp_path / "listed"), infos=[])


def test_tied_parameters(kit, tmp_path):
    from safetensors.torch import save_model

    run = kit.train(model=kit.Net(tied=True), scheduler=kit.cosine)
    path = kit.save_canonical(run, tmp_path / "ck")
    kit.assert_silent(path, infos=[])
    save_model(run.model, path / "model.safetensors")
    kit.assert_silent(path, infos=[])


def test_parameters_that_never_get_a_gradient(kit, tmp_path):
    model = kit.Net()
    model.unused = nn.Linear(3, 3)
    run = kit.train(model=model, scheduler=kit.cosine)
    kit.assert_silent(kit.save_canonical(run, tmp_path / "ck"), infos=[])


def test_several_groups_and_named_parameters(kit, tmp_path):
    def groups(model):
        named = list(model.named_parameters())
        return [
            {"params": [(n, p) for n, p in named if p.ndim > 1], "weight_decay": 0.1},
            {"params": [(n, p) for n, p in named if p.ndim == 1], "weight_decay": 0.0, "lr": 1e-4},
        ]

    run = kit.train(params=groups, scheduler=kit.cosine)
    kit.assert_silent(kit.save_canonical(run, tmp_path / "ck"), infos=[])
    kit.assert_silent(
        kit.save_one_file(
            tmp_path / "ddp",
            {
                "model": nn.DataParallel(run.model).state_dict(),
                "epoch": 2,
                "optimizer": run.optimizer.state_dict(),
                "lr_scheduler": run.scheduler.state_dict(),
            },
        )
    )


def test_pure_bfloat16(kit, tmp_path):
    run = kit.train(scheduler=kit.cosine, dtype="bfloat16")
    path = kit.save_canonical(run, tmp_path / "ck", scaler_state_dict=...)
    kit.assert_silent(path, infos=["optimizer/moment-dtype"])


def test_bfloat16_autocast_without_a_scaler(kit, tmp_path):
    run = kit.train(scheduler=kit.cosine, dtype="autocast")
    path = kit.save_canonical(run, tmp_path / "ck", scaler_state_dict=..., args={"mixed_precision": "bf16"})
    kit.assert_silent(path, infos=[])


def test_constant_learning_rate(kit, tmp_path):
    path = kit.save_canonical(kit.train(), tmp_path / "ck", scheduler_state_dict=...)
    kit.assert_silent(path, infos=["scheduler/missing"])


def test_nanogpt(kit, tmp_path):
    run = kit.train(accumulate=2, batches=8)
    state = {
        "model": {f"_orig_mod.{k}": v for k, v in run.model.state_dict().items()},
        "optimizer": run.optimizer.state_dict(),
        "model_args": {"n_layer": 2, "n_head": 1, "vocab_size": 5},
        "iter_num": run.updates,
        "best_val_loss": torch.tensor(1.5),
        "config": {"gradient_accumulation_steps": 2, "max_iters": 600, "dtype": "float16", "eval_only": False},
    }
    report = kit.assert_silent(kit.save_one_file(tmp_path / "out", state, "ckpt.pt"), infos=[])
    assert report.layout.name == "nanogpt"
    assert report.resume.startswith(f"training continues with iteration {run.updates:,}, with batches drawn at random")


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_pytorch_tutorial(epoch, kit, tmp_path):
    run = kit.train(epochs=epoch + 1)
    state = {
        "epoch": epoch,  # the last that is finished, from 0
        "model_state_dict": run.model.state_dict(),
        "optimizer_state_dict": run.optimizer.state_dict(),
        "loss": torch.tensor(0.4),
    }
    report = kit.assert_silent(kit.save_one_file(tmp_path / "ck", state, "model.pt"), infos=["rng/missing"])
    assert report.layout.name == "plain-torch"
    assert f"epoch {epoch} is recorded" in report.resume


@pytest.mark.parametrize("per", ["epoch", "batch"])
def test_imagenet_example(per, kit, tmp_path):
    run = kit.train(
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        scheduler=lambda o: schedulers.StepLR(o, 30),
        per=per,
    )
    state = {
        "epoch": run.epoch,
        "arch": "resnet18",
        "state_dict": {f"module.{k}": v for k, v in run.model.state_dict().items()},
        "best_acc1": torch.tensor(71.0),
        "optimizer": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict(),
    }
    path = kit.save_one_file(tmp_path / "ck", state, "checkpoint.pth.tar")
    report = kit.assert_silent(path, infos=["rng/missing"])
    assert report.layout.name == "plain-torch"


def test_timm_lets_its_own_namespace_through(kit, tmp_path):
    run = kit.train(params=lambda m: [{"params": list(m.parameters()), "initial_lr": 0.001}])
    state = {
        "epoch": 1,
        "arch": "vit",
        "state_dict": run.model.state_dict(),
        "state_dict_ema": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "version": 2,
        "metric": 71.5,
        "args": argparse.Namespace(epochs=300, amp=False, lr=0.1),
    }
    path = kit.save_one_file(tmp_path / "ck", state, "last.pth.tar")
    (path / "model_best.pth.tar").hardlink_to(path / "last.pth.tar")
    report = kit.assert_silent(path, infos=[])
    assert report.layout.name == "timm"


@pytest.mark.parametrize("key", ["global_step", "step", "iteration", "num_updates"])
def test_global_steps_only(key, kit, tmp_path):
    run = kit.train(scheduler=kit.cosine)
    state = {
        "net": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "lr_scheduler": run.scheduler.state_dict(),
    }
    kit.assert_silent(kit.save_one_file(tmp_path / "ck", {**state, key: run.updates}), infos=["rng/missing"])
    kit.assert_silent(kit.save_one_file(tmp_path / "from_zero", {**state, key: run.updates - 1}), infos=["rng/missing"])
    kit.assert_silent(
        kit.save_one_file(tmp_path / "epoch", {**state, key: run.updates, "epoch": 1}), infos=["rng/missing"]
    )


def test_global_steps_in_a_training_state(kit, tmp_path):
    run = kit.train(scheduler=kit.cosine, accumulate=2)
    path = kit.save_canonical(
        run, tmp_path / "ck", step=run.updates, total_batches=..., scaler_state_dict=..., rng_state=..., epoch=2
    )
    kit.assert_silent(path, infos=["rng/missing"])
    path = kit.save_canonical(
        run, tmp_path / "steps_per_epoch", step=run.batches, steps_per_epoch=7, total_batches=..., scaler_state_dict=...
    )
    kit.assert_silent(path)


def test_counters_and_plans_in_groups(kit, tmp_path):
    run = kit.train(scheduler=kit.cosine, accumulate=2, batches=8)
    state = {
        "model": run.model.state_dict(),
        "optim": run.optimizer.state_dict(),
        "sched": run.scheduler.state_dict(),
        "progress": {"epoch": 2, "step": 0, "total_batches": 8},
        "hparams": {"epochs": 10, "accumulation_steps": 2, "max_steps": -1},
    }
    report = kit.assert_silent(kit.save_one_file(tmp_path / "ck", state), infos=["rng/missing"])
    assert report.resume == "epoch 2 is complete; training starts epoch 3 at its first batch"


def test_parts_in_files_of_their_own(kit, tmp_path):
    run = kit.train(scheduler=kit.cosine)
    path = kit.save_canonical(run, tmp_path / "ck")
    (path / "training_state.pth").unlink()
    (path / "training_state.json").write_text(json.dumps({"epoch": 2, "step": 0, "total_batches": 7}))
    torch.save(run.optimizer.state_dict(), path / "optimizer.pt")
    torch.save({"scheduler": run.scheduler.state_dict()}, path / "lr_scheduler.pt")
    torch.save({}, path / "scaler.pt")
    torch.save({"torch": torch.get_rng_state()}, path / "rng.pt")
    report = kit.assert_silent(path, infos=[])
    assert not [o.rule for o in report.outcomes if o.rule == "optimizer/step-drift" and o.reason]


def test_two_models_with_an_optimizer_each(kit, tmp_path):
    one, two = kit.train(), kit.train(epochs=4)
    state = {
        "netG": one.model.state_dict(),
        "netD": two.model.state_dict(),
        "optimizer_G": one.optimizer.state_dict(),
        "optimizer_D": two.optimizer.state_dict(),
        "epoch": 2,
    }
    report = kit.assert_silent(kit.save_one_file(tmp_path / "ck", state), infos=["rng/missing"])
    skipped = next(o for o in report.outcomes if o.rule == "optimizer/missing")
    assert "keeps 2 optimizers (optimizer_G, optimizer_D)" in skipped.reason


def test_a_feature_scaler_is_no_gradient_scaler(kit, tmp_path):
    run = kit.train()
    state = {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "epoch": 2,
        "scaler": {"mean": torch.zeros(3), "std": torch.ones(3)},
        "amp": False,
    }
    kit.assert_silent(kit.save_one_file(tmp_path / "ck", state), infos=["rng/missing"])


def test_whole_objects(kit, tmp_path):
    run = kit.train()
    state = {"model": run.model.state_dict(), "optimizer": run.optimizer, "epoch": 2}
    report = kit.verify(kit.save_one_file(tmp_path / "ck", state))
    assert [f.rule for f in report.findings] == ["state/needs-unsafe-load", "rng/missing"]


def test_the_last_checkpoint_of_a_run(kit, tmp_path):
    run = kit.train(scheduler=lambda o: schedulers.LambdaLR(o, lambda s: max(0, 1 - s / 14)))
    path = kit.save_canonical(run, tmp_path / "ck", num_epochs=2)
    report = kit.assert_silent(path, infos=["progress/finished"])
    assert report.resume == "nothing is left to train: the planned end of 2 epochs is reached"


def test_warm_up_from_zero(kit, tmp_path):
    run = kit.train(scheduler=lambda o: schedulers.LambdaLR(o, lambda s: min(1, s / 1000)), epochs=0)
    kit.assert_silent(kit.save_canonical(run, tmp_path / "start", epoch=0), infos=[])
    run = kit.train(scheduler=lambda o: schedulers.LambdaLR(o, lambda s: min(1, s / 1000)), epochs=1)
    kit.assert_silent(kit.save_canonical(run, tmp_path / "ck"), infos=[])


@pytest.mark.parametrize("name", ["epoch_2", "epoch-1", "epoch=1-step=14", "step-14", "checkpoint-14", "checkpoint-2", "iter_0000014", "global_step14", "run-2024", "llama-7b", "v2", "checkpoint-20240501", "ckpt_2024-05-01", "step_14k", "resnet50", "2", "exp3_lr0.1_bs32"])  # fmt: skip
def test_names(name, kit, tmp_path):
    run = kit.train(scheduler=kit.cosine)
    kit.assert_silent(kit.save_canonical(run, tmp_path / name), infos=[])


def test_detectron2_counts_from_zero(kit, tmp_path):
    run = kit.train(scheduler=kit.cosine, batches=200, epochs=1)
    state = {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict(),
        "iteration": 199,
    }
    kit.assert_silent(kit.save_one_file(tmp_path / "out", state, "model_0000199.pth"), infos=[])


@pytest.mark.parametrize("updates_per_round", [2, 20])
@pytest.mark.parametrize("first", [0, 1])
def test_rounds_of_several_updates(first, updates_per_round, kit, tmp_path):
    run = kit.train(batches=20 * updates_per_round, epochs=1)
    state = {
        "model_state_dict": run.model.state_dict(),
        "optimizer_state_dict": run.optimizer.state_dict(),
        "iter": 19 + first,
        "infos": None,
    }
    kit.assert_silent(kit.save_one_file(tmp_path / "out", state, "model_19.pt"), infos=["rng/missing"])


def test_an_iteration_of_the_epoch(kit, tmp_path):
    run = kit.train(scheduler=kit.cosine, batches=40, epochs=3, stop=(3, 15))
    state = {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict(),
        "epoch": 3,
        "iter": 15,
    }
    kit.assert_silent(kit.save_one_file(tmp_path / "short", state), infos=["rng/missing"])
    report = kit.assert_silent(kit.save_one_file(tmp_path / "ck", {**state, "num_batches": 40}), infos=["rng/missing"])
    assert report.resume == "epoch 3 continues: batches 0 to 14 are skipped, 15 to 39 are trained"
    report = kit.assert_silent(
        kit.save_one_file(tmp_path / "all", {**state, "iter": 95, "num_batches": 40}), infos=["rng/missing"]
    )
    assert report.resume == "training continues at optimizer update 96; epoch 3 is recorded, but not how far it got"


def test_accelerate_steps_the_scheduler_for_every_process(kit, tmp_path):
    run = kit.train(scheduler=kit.cosine, batches=30)
    for _ in range(run.updates * 3):
        run.scheduler.step()
    kit.assert_silent(kit.save_canonical(run, tmp_path / "ck", world_size=4), infos=[])
    kit.assert_silent(kit.save_canonical(run, tmp_path / "args", args=argparse.Namespace(num_processes=4).__dict__))


def test_a_warm_up_beside_the_scheduler(kit, tmp_path):
    run = kit.train(scheduler=kit.cosine)
    run.optimizer.param_groups[0]["lr"] *= 0.1
    path = kit.save_canonical(
        run, tmp_path / "ck", warmup_scheduler={"last_step": 14, "warmup_params": [{"warmup_period": 100}]}
    )
    kit.assert_silent(path, infos=[])


def test_flat_pieces_of_a_sharded_optimizer_are_one_ranks(kit, tmp_path):
    run = kit.train(optimizer=lambda p: torch.optim.AdamW([nn.Parameter(torch.zeros(50))]), epochs=0)
    run.optimizer.param_groups[0]["params"][0].grad = torch.ones(50)
    run.optimizer.step()
    state = {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict(), "global_step": 1}
    found = kit.verify(kit.save_one_file(tmp_path / "ck", state)).findings
    assert {f.rule for f in found} == {"optimizer/param-mismatch", "rng/missing"}
    pieces = torch.zeros(run.optimizer.param_groups[0]["params"][0].numel() * 3)  # all of them together
    state["optimizer"]["state"][0] |= {"exp_avg": pieces, "exp_avg_sq": pieces}
    kit.assert_silent(kit.save_one_file(tmp_path / "whole", state), infos=["rng/missing"])


def test_a_number_that_counts_saves(kit, tmp_path):
    run = kit.train(scheduler=kit.cosine)
    kit.assert_silent(kit.save_canonical(run, tmp_path / "checkpoint_7"), infos=[])
