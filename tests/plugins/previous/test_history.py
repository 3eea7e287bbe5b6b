"""The rules of a run's history: other-history, run-ahead, plan-changed, stale-state, lacks-file, and unchanged moments."""

from __future__ import annotations

import math
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from ckpt_rules import verify
from ckpt_rules.testing import CheckpointDir
from ckpt_rules_previous.lacking import LacksFile
from ckpt_rules_previous.plan import PlanChanged
from ckpt_rules_previous.progress import ProgressWentBack
from ckpt_rules_previous.stale import StaleState
from ckpt_rules_previous.values import Unchanged
from ckpt_rules_transformers.history import OtherHistory, RunAhead

HISTORY = [LacksFile, OtherHistory, PlanChanged, ProgressWentBack, RunAhead, StaleState]
STATE = "trainer_state.json"


@pytest.fixture
def trainer_save(tmp_path):
    """What the Trainer writes at a step of a plan: `trainer_save(10, total=20, loss=4.0)`."""

    def make(step, total=20, loss=4.0, run="run", schedule=True, **state):
        folder = tmp_path / run / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        torch.manual_seed(int(loss))
        model = torch.nn.Linear(8, 4)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        rate = (lambda n: 0.5 * (1 + math.cos(math.pi * n / total))) if schedule else (lambda n: 1.0)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        for _ in range(step):
            model(torch.randn(2, 8)).square().sum().backward()
            optimizer.step()
            scheduler.step()
        save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
        torch.save(optimizer.state_dict(), folder / "optimizer.pt")
        torch.save(scheduler.state_dict(), folder / "scheduler.pt")
        torch.save({"cpu": torch.get_rng_state()}, folder / "rng_state.pth")
        log = [{"step": n, "epoch": n / 10, "loss": loss - n / 100} for n in range(2, step + 1, 2)]
        saved = {"global_step": step, "epoch": step / 10, "max_steps": total, "num_train_epochs": 2, "save_steps": 5}
        checkpoint = CheckpointDir(folder)
        checkpoint.write_json("config.json", {"model_type": "tiny"})
        return checkpoint.write_json(STATE, saved | {"log_history": log, "stateful_callbacks": {}} | state)

    return make


def written(checkpoint, seconds):
    os.utime(checkpoint.path, (seconds, seconds))


@pytest.mark.parametrize("rule", HISTORY)
def test_saves_of_one_run_pass(trainer_save, run_rule, rule):
    saves = [trainer_save(step) for step in (5, 10, 15)]
    for checkpoint in saves:
        assert run_rule(rule(), checkpoint).findings == ()


@pytest.mark.parametrize("rule", HISTORY)
def test_a_plain_copy_of_them_passes_whatever_was_copied_first(trainer_save, run_rule, rule):
    for step, seconds in ((5, 300), (10, 100), (15, 200)):
        checkpoint = trainer_save(step)
        written(checkpoint, seconds)
        assert run_rule(rule(), checkpoint).findings == ()


class TestOtherHistory:
    def test_what_a_former_run_left_is_an_error(self, trainer_save, run_rule):
        new, old = trainer_save(5, loss=5.0), trainer_save(10, loss=4.0)
        written(old, 100)
        found = run_rule(OtherHistory(), old).assert_one(
            severity="error",
            path=STATE,
            key="log_history[0].loss",
            message="the log has loss 3.98 at step 2, but that of checkpoint-5, which was written later, has 4.98: this save "
            "is left from an earlier run in the same directory",
        )
        assert found.data == {
            "other": "checkpoint-5",
            "step": 2,
            "key": "loss",
            "here": "3.98",
            "there": "4.98",
            "written_before": True,
        }
        run_rule(OtherHistory(), new).assert_skipped("no earlier save")

    def test_all_that_the_former_run_left_are_named(self, trainer_save, run_rule):
        for seconds, (step, loss) in enumerate([(15, 4.0), (20, 4.0), (5, 5.0), (10, 5.0)], 100):
            written(trainer_save(step, loss=loss), seconds)
        run = trainer_save(25, loss=4.0)
        written(run, 50)
        for name in ("checkpoint-15", "checkpoint-20"):
            run_rule(OtherHistory(), run.path.parent / name).assert_one(
                severity="error", data={"other": "checkpoint-10"}
            )
        assert run_rule(OtherHistory(), run.path.parent / "checkpoint-10").findings == ()

    def test_an_attempt_that_was_given_up_after_an_older_save_is_a_warning(self, trainer_save, run_rule):
        trainer_save(5)
        old = trainer_save(15)
        log = [{"step": n, "loss": 4.0 - n / 100 + (n > 5)} for n in range(2, 12, 2)]
        trainer_save(12, log_history=log)
        written(old, 100)
        written(trainer_save(4), 50)
        written(CheckpointDir(old.path.parent / "checkpoint-5"), 60)
        run_rule(OtherHistory(), old).assert_one(
            severity="warning",
            key="log_history[2].loss",
            message="training was resumed from an older save since, and this one is left from the attempt before",
        )

    def test_times_that_contradict_the_logs_are_of_a_copy(self, trainer_save, run_rule):
        for seconds, (step, loss) in enumerate([(10, 5.0), (15, 4.0), (20, 4.0), (5, 5.0)], 100):
            written(trainer_save(step, loss=loss), seconds)
        later = CheckpointDir(trainer_save(1).path.parent / "checkpoint-20")
        run_rule(OtherHistory(), later).assert_one(
            severity="warning",
            message="the two saves are not of the same run",
            data={"written_before": False, "other": "checkpoint-10"},
        )

    def test_what_is_measured_by_the_clock_may_differ(self, trainer_save, run_rule):
        log = [{"step": 2, "loss": 3.98, "train_runtime": 7.0, "eval_samples_per_second": 3.0}]
        trainer_save(5, log_history=log)
        log = [{"step": 2, "loss": 3.98, "train_runtime": 9.0, "eval_samples_per_second": 4.0}]
        run_rule(OtherHistory(), trainer_save(10, log_history=log)).assert_passed()

    def test_an_evaluation_that_a_resume_repeats_at_the_same_step_may_differ(self, trainer_save, run_rule):
        log = [{"step": 4, "loss": 3.9}, {"step": 4, "eval_loss": 3.5}]
        trainer_save(5, log_history=log)
        run_rule(OtherHistory(), trainer_save(10, log_history=[*log, {"step": 4, "eval_loss": 3.51}])).assert_passed()

    @pytest.mark.parametrize(
        "log", [None, "x", [], [None, 3], [{"step": "2", "loss": 1}], [{"step": 1e400, "loss": {}}]]
    )
    def test_a_log_of_another_form_says_nothing(self, trainer_save, run_rule, log):
        trainer_save(5)
        run_rule(OtherHistory(), trainer_save(10, log_history=log)).assert_skipped("keeps no log of training")


class TestRunAhead:
    def state(self, checkpoint, value):
        CheckpointDir(checkpoint.path.parent).write_json(STATE, value)

    def test_later_saves_are_gone(self, trainer_save, run_rule):
        newest = trainer_save(5)
        self.state(newest, {"global_step": 20, "max_steps": 20})
        run_rule(RunAhead(), newest).assert_one(
            severity="warning",
            path=f"../{STATE}",
            key="global_step",
            message="the run's own trainer_state.json is at step 20, but the newest save that is left, checkpoint-5, is at "
            "step 5: a resume trains 15 steps again",
            data={"run": 20, "save": 5, "save_steps": 5},
        )

    @pytest.mark.parametrize("done", [5, 9, 4])
    def test_less_than_an_interval_of_saving_passes(self, trainer_save, run_rule, done):
        newest = trainer_save(5)
        self.state(newest, {"global_step": done})
        run_rule(RunAhead(), newest).assert_passed()

    def test_the_best_one_that_was_kept_passes(self, trainer_save, run_rule):
        newest = trainer_save(5)
        self.state(newest, {"global_step": 20, "best_model_checkpoint": "/elsewhere/run/checkpoint-5"})
        run_rule(RunAhead(), newest).assert_passed()

    def test_only_the_newest_is_asked(self, trainer_save, run_rule):
        older, _ = trainer_save(5), trainer_save(10)
        self.state(older, {"global_step": 20})
        run_rule(RunAhead(), older).assert_skipped("not the newest save")

    @pytest.mark.parametrize("value", [[], None, {}, {"global_step": "20"}, {"global_step": math.nan}])
    def test_another_form_says_nothing(self, trainer_save, run_rule, value):
        newest = trainer_save(5)
        self.state(newest, value)
        assert run_rule(RunAhead(), newest).findings == ()


class TestPlanChanged:
    def test_both_plans_and_the_jump_of_the_rate_are_told(self, trainer_save, run_rule):
        trainer_save(10, total=20)
        run_rule(PlanChanged(), trainer_save(15, total=40)).assert_one(
            severity="warning",
            path=STATE,
            key="max_steps",
            message="max_steps is 40, but it was 20 in the previous save, checkpoint-10: a schedule that depends on it has changed; the learning rate rose from 0.0005 to 0.0006913",
            data={"before": "20", "after": "40", "previous": "checkpoint-10"},
        )

    def test_where_the_rate_is_constant_a_run_may_be_extended(self, trainer_save, run_rule):
        trainer_save(10, total=20, schedule=False)
        run_rule(PlanChanged(), trainer_save(15, total=40, schedule=False)).assert_passed()

    def test_only_the_first_save_of_the_new_plan_is_named(self, trainer_save, run_rule):
        for step, total in ((10, 20), (15, 40)):
            trainer_save(step, total)
        run_rule(PlanChanged(), trainer_save(20, total=40)).assert_passed()

    @pytest.mark.parametrize("plan", [None, 0, -1, "20", math.nan, [20]])
    def test_no_limit_is_no_plan(self, trainer_save, run_rule, plan):
        trainer_save(10, max_steps=plan, num_train_epochs=None)
        assert run_rule(PlanChanged(), trainer_save(15)).findings == ()


def test_an_epoch_that_went_back_is_an_error(trainer_save, run_rule):
    trainer_save(10)
    run_rule(ProgressWentBack(), trainer_save(15, epoch=0.5)).assert_one(
        severity="error",
        path=STATE,
        key="epoch",
        message="the epoch is 0.5, but it was 1 in the previous save, checkpoint-10",
        data={"counter": "epoch", "before": 1.0, "after": 0.5, "previous": "checkpoint-10"},
    )


class TestStaleState:
    def test_the_optimizer_of_the_save_before(self, trainer_save, run_rule):
        before, after = trainer_save(5), trainer_save(10)
        after.swap_from(before, "optimizer.pt")
        run_rule(StaleState(), after).assert_one(
            severity="error",
            path="optimizer.pt",
            message="5 steps were made since checkpoint-5, but all 4 tensors of the optimizer are unchanged (same CRC-32)",
            data={"which": "optimizer", "tensors": 4, "steps": 5, "previous": "checkpoint-5"},
        )
        assert verify(after.path).exit_code == 1

    def test_an_optimizer_that_counted_on_is_not_that_of_the_save_before(self, trainer_save, run_rule):
        """Equal moments alone are not a copy: by default nothing is said of them, and `deep` reads the bytes."""
        before, after = trainer_save(5), trainer_save(10)
        after.swap_from(before, "optimizer.pt")
        for parameter in (0, 1):
            after.set_key("optimizer.pt", f"state.{parameter}.step", torch.tensor(10.0))
        run_rule(StaleState(), after).assert_passed()
        run_rule(Unchanged(), after).assert_one(
            path="optimizer.pt", message="all 4 moments of the optimizer are the same"
        )

    def test_a_best_save_named_by_its_old_place_is_passed_over_where_the_run_was_moved(self, trainer_save):
        for step in (5, 10):
            after = trainer_save(
                step, best_model_checkpoint="/gone/run/checkpoint-5", best_global_step=5, best_metric=0.1
            )
        assert not [
            f for f in verify(after.path).findings if "best" in (f.place.key or "") or f.rule.startswith("previous/")
        ]

    @pytest.fixture
    def weights_in_torch_files(self, trainer_save):
        saves = []
        for step in (5, 10):
            checkpoint = trainer_save(step).remove("model.safetensors")
            torch.manual_seed(step)
            torch.save(torch.nn.Linear(8, 4).state_dict(), checkpoint / "pytorch_model.bin")
            saves.append(checkpoint)
        return saves

    def test_the_weights_of_the_save_before(self, weights_in_torch_files, run_rule):
        before, after = weights_in_torch_files
        run_rule(StaleState(), after).assert_passed()
        after.swap_from(before, "pytorch_model.bin")
        run_rule(StaleState(), after).assert_one(
            severity="error",
            path="pytorch_model.bin",
            message="all 2 tensors of the weights are unchanged",
            data={"which": "weights", "tensors": 2, "steps": 5},
        )

    def test_a_rate_of_zero_leaves_weights_as_they_are(self, weights_in_torch_files, run_rule):
        before, after = weights_in_torch_files
        after.swap_from(before, "pytorch_model.bin")
        for checkpoint in (before, after):
            checkpoint.set_key("optimizer.pt", "param_groups.0.lr", 0.0)
        run_rule(StaleState(), after).assert_passed()

    def test_too_few_steps_for_an_update_are_passed_over(self, trained, run_rule):
        before, after = trained(updates=(4, 5))
        for checkpoint, step in ((before, 32), (after, 36)):
            checkpoint.set_key("training_state.pth", "step", step)
            checkpoint.set_key("training_state.pth", "global_step", step)
        after.swap_from(before, "training_state.pth")
        for key in ("step", "global_step"):
            after.set_key("training_state.pth", key, 36)
        run_rule(StaleState(), after).assert_skipped("may be too few for an update")

    def test_one_of_two_optimizers_may_rest(self, tmp_path, run_rule):
        """Accelerate with a generator and a discriminator, which is not trained between the saves."""
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True)
        made = [torch.nn.Linear(8, 8) for _ in range(2)]
        optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-3) for m in made]
        prepared = accelerator.prepare(*made, *optimizers)
        for step in (2, 4):
            for model, optimizer in list(zip(prepared[:2], prepared[2:], strict=True))[: 2 if step == 2 else 1]:
                for _ in range(2):
                    model(torch.randn(2, 8)).sum().backward()
                    optimizer.step()
                    optimizer.zero_grad()
            accelerator.save_state(str(tmp_path / f"step_{step}"))
        for rule in (StaleState, Unchanged):
            assert run_rule(rule(), tmp_path / "step_4").findings == ()

    def test_deep_finds_by_bytes_what_has_no_check_sums(self, trained, run_rule):
        before, after = trained()
        stale = torch.load(before / "training_state.pth", weights_only=False)["optimizer_state_dict"]

        def replace(state):
            return state | {"optimizer_state_dict": stale}

        after.edit("training_state.pth", replace)
        run_rule(StaleState(), after).assert_one(data={"which": "optimizer", "steps": 3})
        run_rule(Unchanged(), after).assert_passed()
        for checkpoint in (before, after):
            state = torch.load(checkpoint / "training_state.pth", weights_only=False)
            torch.save(state, checkpoint / "training_state.pth", _use_new_zipfile_serialization=False)
        run_rule(StaleState(), after).assert_passed()
        run_rule(Unchanged(), after).assert_one(
            severity="error",
            path="training_state.pth",
            message="3 steps were made since step-3, but all 8 moments of the optimizer are the same, bit for bit",
            data={"which": "optimizer", "tensors": 8, "steps": 3},
        )


class TestLacksFile:
    @pytest.fixture
    def run(self, trainer_save):
        saves = [trainer_save(step) for step in (5, 10, 15)]
        for checkpoint in saves:
            torch.save(torch.zeros(4), checkpoint / "ema.pt")
        return saves

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_what_the_saves_beside_it_have(self, run, run_rule, number):
        run[number].remove("ema.pt")
        others = [c.path.name for i, c in enumerate(run) if i != number]
        found = run_rule(LacksFile(), run[number]).assert_one(
            severity="warning", path="ema.pt", message="it has no ema.pt, but all 2 neighbouring saves do"
        )
        assert sorted(found.data["others"]) == sorted(others)
        assert found.data["lacking"] == ["ema.pt"]

    def test_one_save_beside_it_is_too_few(self, run, run_rule):
        shutil.rmtree(run[0].path)
        run[2].remove("ema.pt")
        run_rule(LacksFile(), run[2]).assert_skipped("fewer than two other saves")

    @pytest.mark.parametrize(
        "name", ["eval_results.json", "all_metrics.json", "predictions.jsonl", "a.png", "x.log", "README.md"]
    )
    def test_what_evaluations_leave_may_be_missing(self, run, run_rule, name):
        for checkpoint in run[:2]:
            (checkpoint / name).write_text("{}")
        run_rule(LacksFile(), run[2]).assert_passed()

    @pytest.mark.parametrize("worlds", [(1, 1, 4), (4, 4, 1), (4, 4, 2), (2, 2, 16)])
    def test_another_number_of_ranks_passes(self, run, run_rule, worlds):
        for checkpoint, world in zip(run, worlds, strict=True):
            state = (checkpoint / "rng_state.pth").read_bytes()
            checkpoint.remove("rng_state.pth")
            for rank in range(world):
                name = "rng_state.pth" if world == 1 else f"rng_state_{rank}.pth"
                (checkpoint / name).write_bytes(state)
        run_rule(LacksFile(), run[2]).assert_passed()

    def test_weights_in_one_file_after_shards_pass(self, run, run_rule):
        for checkpoint in run[:2]:
            checkpoint.remove("model.safetensors")
            names = {}
            for number, name in enumerate(("weight", "bias"), 1):
                shard = f"model-{number:05d}-of-00002.safetensors"
                save_file({name: torch.zeros(4)}, checkpoint / shard, {"format": "pt"})
                names[name] = shard
            checkpoint.write_json("model.safetensors.index.json", {"metadata": {}, "weight_map": names})
        run_rule(LacksFile(), run[2]).assert_passed()

    def test_weights_without_a_state_among_full_saves_are_not_resumable_and_nothing_else(self, run, run_rule):
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            run[1].remove(name)
        run_rule(LacksFile(), run[1]).assert_passed()
