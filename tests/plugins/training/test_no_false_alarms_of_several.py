"""Clean checkpoints of several schedulers, optimizers and models, and of other trainers' counters: no rule finds fault with any."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler as schedulers

from ckpt_rules import inspect


class TestSeveralOfAKind:
    """Several schedulers, optimizers and models, under names that scripts give them."""

    def test_a_plateau_beside_a_warm_up(self, kit, tmp_path):
        run = kit.train(scheduler=schedulers.LinearLR)
        plateau = schedulers.ReduceLROnPlateau(run.optimizer, patience=0)
        for _ in range(3):
            plateau.step(1.0)
        path = kit.save_canonical(run, tmp_path / "ck", plateau=plateau.state_dict())
        kit.assert_silent(path, infos=[])

    def test_averaging_takes_over_from_the_schedule(self, kit, tmp_path):
        run = kit.train(scheduler=lambda o: schedulers.CosineAnnealingLR(o, 10), per="epoch")
        averaging = torch.optim.swa_utils.SWALR(run.optimizer, 0.05, anneal_epochs=2)
        average = torch.optim.swa_utils.AveragedModel(run.model)
        for _ in range(3):
            average.update_parameters(run.model)
            averaging.step()
        more = {"swa_model": average.state_dict(), "swa_scheduler": averaging.state_dict()}
        for state in run.optimizer.state.values():
            state["step"] += 21
        kit.assert_silent(kit.save_canonical(run, tmp_path / "ck", epoch=5, **more), infos=[])

    def test_one_schedule_after_another(self, kit, tmp_path):
        run = kit.train(scheduler=schedulers.LinearLR, stop=(1, 5))
        cosine = schedulers.CosineAnnealingLR(run.optimizer, 30)
        for _ in range(2):
            run.optimizer.step()
            cosine.step()
        path = kit.save_canonical(run, tmp_path / "ck", epoch=1, step=0, cosine=cosine.state_dict(), global_step=7)
        kit.assert_silent(path, infos=[])

    @pytest.mark.parametrize("kept", [dict, lambda pairs: [v for _, v in pairs]], ids=["by name", "in a list"])
    def test_two_models(self, kept, kit, tmp_path):
        runs = [(name, kit.train(scheduler=kit.cosine)) for name in ("G", "D")]
        state = {
            "epoch": 2,
            "models": kept([(n, r.model.state_dict()) for n, r in runs]),
            "optimizer": kept([(n, r.optimizer.state_dict()) for n, r in runs]),
            "scheduler": kept([(n, r.scheduler.state_dict()) for n, r in runs]),
        }
        report = kit.assert_silent(kit.save_one_file(tmp_path / "ck", state), infos=["rng/missing"])
        assert report.layout.name == "plain-torch"
        assert len(inspect(tmp_path / "ck").weights.files) == 1


@pytest.mark.parametrize("key", ["ema_state_dict", "ema_model", "swa_model"])
def test_a_moving_average_under_its_usual_names(key, kit, tmp_path):
    run = kit.train(scheduler=kit.cosine)
    average = torch.optim.swa_utils.AveragedModel(run.model).state_dict()
    kit.assert_silent(kit.save_canonical(run, tmp_path / "ck", scaler_state_dict=..., **{key: average}))


def test_a_moving_average_of_what_is_trained(kit, tmp_path):
    model = kit.Net()
    model.embed.requires_grad_(requires_grad=False)
    run = kit.train(model=model, scheduler=kit.cosine)
    ema = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    kit.assert_silent(kit.save_canonical(run, tmp_path / "ck", ema=ema), infos=[])


COUNTED = {
    "ignite": {"trainer": {"epoch_length": 7, "max_epochs": 5, "iteration": 14}},
    "ignite by epochs": {"trainer": {"epoch_length": 7, "max_epochs": 5, "epoch": 2}},
    "litgpt": {"iter_num": 56, "step_count": 14, "hparams": {"lr": 0.1}},
}


@pytest.mark.parametrize("trainer", COUNTED)
def test_counters_as_other_trainers_keep_them(trainer, kit, tmp_path):
    run = kit.train()
    parts = {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict()}
    path = kit.save_one_file(tmp_path / "ck", {**parts, **COUNTED[trainer]}, "state.ckpt")
    report = kit.assert_silent(path, infos=["rng/missing"])
    assert report.resume.startswith("training continues at optimizer update 15")
