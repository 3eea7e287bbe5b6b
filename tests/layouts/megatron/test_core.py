"""Megatron-core's distributed form in detail: the form without common.pt, skipped updates, layers, optimizer, manifest."""

from __future__ import annotations

import argparse
import hashlib
import json
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import DefaultSavePlanner

from ckpt_rules import inspect, newest_checkpoint, verify
from tests.layouts.killing import said

ARGS = {"num_layers": 2, "global_batch_size": 8, "train_iters": 500, "rampup_batch_size": None}


def tensors(layers=2):
    """A model of so many layers, and Adam's moments and the float32 weights of each parameter."""
    torch.manual_seed(0)
    model = {"embedding.word_embeddings.weight": torch.randn(32, 16)}
    model |= {f"decoder.layers.{n}.mlp.linear_fc1.weight": torch.randn(32, 16) for n in range(layers)}
    kinds = ("exp_avg", "exp_avg_sq", "fp32_param")
    return model | {f"optimizer.state.{k}.{name}": torch.rand(w.shape) for k in kinds for name, w in model.items()}


def values(iteration=100, skipped=0, **args):
    samples = iteration * 8
    return {
        "args": argparse.Namespace(**{**ARGS, "consumed_train_samples": samples, **args}),
        "checkpoint_version": 3.0,
        "iteration": iteration,
        "optimizer": {"optimizer": {"param_groups": [{"lr": 1e-4, "step": iteration - skipped, "params": [0]}]}},
        "opt_param_scheduler": {"num_steps": samples - 8 * skipped},
    }


def write(folder, state):
    """Megatron-core's planner leaves lists and dictionaries whole."""
    planner = DefaultSavePlanner(flatten_state_dict=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder, planner=planner, no_dist=True)
    (folder / "metadata.json").write_text(json.dumps({"sharded_backend": "torch_dist", "sharded_backend_version": 1}))


def save(folder, common, state=None, *, old=False):
    """As Megatron-core 0.19 writes it; up to 0.18 with common.pt."""
    folder.mkdir(parents=True)
    state = {
        **(tensors() if state is None else state),
        "rng_state/shard_0.0_1.1": [[{"random_rng_state": (3, (), None)}]],
    }
    if old:
        torch.save(common, folder / "common.pt")
    else:
        state["common_state/shard_0_1"] = [common]
    write(folder, state)
    number = folder.name.removeprefix("iter_").lstrip("0")
    (folder.parent / "latest_checkpointed_iteration.txt").write_text(number)
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "iter_0000100"


def found(path, **options):
    return [(f.rule, f.place.path, f.place.key or f.place.tensor, f.message) for f in verify(path, **options).findings]


class TestWithoutCommonFile:
    @pytest.mark.parametrize("ruleset", ["default", "deep", "quick"])
    def test_a_clean_save(self, folder, ruleset):
        report = verify(save(folder, values(no_save_rng=False)), ruleset=ruleset, strict=True)
        assert (report.layout.name, report.passed, report.findings) == ("megatron", True, []), said(report)

    def test_what_it_says_of_the_run(self, folder):
        shown = inspect(save(folder, values()))
        assert (
            "continues at iteration 101, after 800 samples" in shown.resume.sentence
            if hasattr(shown, "resume")
            else True
        )
        assert shown.progress.global_step == 100
        assert shown.progress.planned_updates == 500
        assert shown.rng.sources == ("python",)
        assert newest_checkpoint(folder.parent) == str(folder)

    def test_the_scheduler_against_the_samples(self, folder):
        common = values()
        common["opt_param_scheduler"]["num_steps"] = 1600
        assert found(save(folder, common)) == [
            (
                "progress/counters-disagree",
                "__0_0.distcp",
                "opt_param_scheduler.num_steps",
                "the scheduler is at 1,600 samples, but 800 were consumed",
            )
        ]

    def test_another_iteration_than_the_name_says(self, folder):
        (problem,) = found(save(folder, values(iteration=90)))
        assert problem[:3] == ("progress/name-mismatch", ".", None)

    @pytest.mark.parametrize("wrong", [None, [], [[]], "x", {}, [None]])
    def test_an_item_of_another_kind_is_found(self, folder, wrong):
        folder.mkdir(parents=True)
        write(folder, {**tensors(), "common_state/shard_0_1": wrong})
        report = verify(folder)
        assert not report.passed, said(report)

    def test_neither_file_nor_item(self, folder):
        path = save(folder, values(), old=True)
        (path / "common.pt").unlink()
        assert [p[:2] for p in found(path)] == [("files/missing-required", "common.pt")]


class TestSkippedUpdates:
    """Where a loss scale makes the gradients overflow, the update is left out, and the scheduler does not count it."""

    @pytest.mark.parametrize("old", [True, False])
    def test_some_are_healthy(self, folder, old):
        assert found(save(folder, values(skipped=3, fp16=True), old=old)) == []

    def test_those_that_the_run_was_told_to_skip(self, folder):
        assert found(save(folder, values(skipped=2, iterations_to_skip=[7, 8]))) == []

    def test_in_bfloat16_none_are(self, folder):
        assert [p[3] for p in found(save(folder, values(skipped=3, bf16=True)))] == [
            "the scheduler is at 776 samples, but 800 were consumed"
        ]

    def test_a_part_of_a_batch_is_never_skipped(self, folder):
        common = values(fp16=True)
        common["opt_param_scheduler"]["num_steps"] = 790
        assert [p[3] for p in found(save(folder, common))] == ["the scheduler is at 790 samples, but 800 were consumed"]

    def test_rollouts_count_no_samples(self, folder):
        assert found(save(folder, values(num_rollout=500, consumed_train_samples=0))) == []

    @pytest.mark.parametrize("made", [17, 0])
    def test_all_of_them_leave_a_fused_adam_empty(self, tmp_path, made):
        weights = {f"layers.{n}.weight": torch.randn(4, 4).half() for n in range(2)}
        group = {"lr": 1e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, "bias_correction": True}
        group |= {"params": [0, 1]} | ({"step": made} if made else {})
        moments = {"exp_avg": torch.ones(4, 4), "exp_avg_sq": torch.ones(4, 4)}
        adam = {"state": {n: moments for n in range(2) if made}, "param_groups": [group]}
        scaler = {"scale": torch.tensor([4096.0]), "growth_tracker": 0, "hysteresis_tracker": 2}
        common = values(iteration=20, skipped=20 - made, fp16=True)
        common["optimizer"] = {
            "optimizer": adam,
            "grad_scaler": scaler,
            "fp32_from_fp16_params": [[w.float() for w in weights.values()]],
        }
        folder = tmp_path / "iter_0000020" / "mp_rank_00"
        folder.mkdir(parents=True)
        torch.save({**common, "model": {"language_model": {"encoder": weights}}}, folder / "model_optim_rng.pt")
        (tmp_path / "latest_checkpointed_iteration.txt").write_text("20")
        problems = [p[:3] for p in found(folder.parent) if p[0] not in ("rng/missing", "optimizer/moment-dtype")]
        where = ("mp_rank_00/model_optim_rng.pt", "optimizer.optimizer.state")
        assert problems == ([] if made else [("optimizer/empty-state", *where)])


class TestParts:
    @pytest.mark.parametrize("old", [True, False])
    def test_no_optimizer(self, folder, old):
        common = {k: v for k, v in values().items() if k != "optimizer"}
        model = {k: v for k, v in tensors().items() if not k.startswith("optimizer.")}
        (problem,) = found(save(folder, common, model, old=old))
        assert problem[:3] == ("optimizer/missing", "common.pt" if old else "__0_0.distcp", "optimizer")
        assert "neither its param_groups nor its moments" in problem[3]

    def test_no_optimizer_in_the_file_of_a_rank(self, folder):
        (folder / "mp_rank_00").mkdir(parents=True)
        common = {k: v for k, v in values(num_layers=None).items() if k != "optimizer"}
        model = {"language_model": {"encoder": {"layers.0.weight": torch.randn(4, 4)}}}
        torch.save({**common, "model": model, "rng_state": []}, folder / "mp_rank_00" / "model_optim_rng.pt")
        (folder.parent / "latest_checkpointed_iteration.txt").write_text("100")
        problems = [p[:3] for p in found(folder) if p[0] != "rng/missing"]
        assert problems == [("optimizer/missing", "mp_rank_00/model_optim_rng.pt", "optimizer")]

    def test_moments_without_groups(self, folder):
        common = {k: v for k, v in values().items() if k != "optimizer"}
        (problem,) = found(save(folder, common))
        assert problem[0] == "optimizer/missing"
        assert "param_groups, with its rates and its count of steps, are missing" in problem[3]

    def test_a_model_that_was_converted_has_none(self, tmp_path):
        model = {k: v for k, v in tensors().items() if not k.startswith("optimizer.")}
        common = {"args": values()["args"], "iteration": 0, "checkpoint_version": 3.0}
        common["args"].consumed_train_samples = 0
        path = save(tmp_path / "iter_0000000", common, model)
        (path.parent / "latest_checkpointed_iteration.txt").write_text("0")
        assert found(path) == []

    def test_no_random_state_where_it_is_saved(self, folder):
        save(folder, values())
        write(folder, {**tensors(), "common_state/shard_0_1": [values(no_save_rng=False)]})
        ((rule, file, key, _),) = found(folder)
        assert (rule, file, key) == ("rng/missing", "__0_0.distcp", "rng_state")

    @pytest.mark.parametrize("kind", ["exp_avg", "exp_avg_sq"])
    def test_a_moment_of_one_parameter(self, folder, kind):
        name = f"optimizer.state.{kind}.decoder.layers.1.mlp.linear_fc1.weight"
        (problem,) = found(save(folder, values(), {k: v for k, v in tensors().items() if k != name}))
        assert problem[:3] == ("optimizer/missing-moment", ".metadata", name)
        assert f"lacks {kind}, which most of the 3 parameters have" in problem[3]

    def test_parameters_that_are_frozen_or_already_float32(self, folder):
        left = (
            "fp32_param.embedding",
            "exp_avg.decoder.layers.1",
            "exp_avg_sq.decoder.layers.1",
            "fp32_param.decoder.layers.1",
        )
        state = {k: v for k, v in tensors().items() if not k.startswith(tuple(f"optimizer.state.{n}" for n in left))}
        assert found(save(folder, values(), state)) == []


class TestLayers:
    def test_the_upper_half_is_missing(self, folder):
        assert found(save(folder, values(num_layers=4))) == [
            (
                "ranks/layer-range",
                "__0_0.distcp",
                "args.num_layers",
                "the save holds 2 layers, but the arguments say 4: 2, 3 of decoder.layers are missing",
            )
        ]

    def test_more_than_the_arguments_say(self, folder):
        (problem,) = found(save(folder, values(num_layers=1), old=True))
        assert problem[:3] == ("ranks/layer-range", "common.pt", "args.num_layers")
        assert "holds 2 layers, but the arguments say 1" in problem[3]

    @pytest.mark.parametrize("planned", [2, 4])
    def test_stacked_in_one_tensor(self, folder, planned):
        name = "decoder.layers.mlp.linear_fc1.weight"
        model = {name: torch.randn(2, 8, 8)}
        state = model | {f"optimizer.state.{k}.{name}": torch.rand(2, 8, 8) for k in ("exp_avg", "exp_avg_sq")}
        problems = found(save(folder, values(num_layers=planned), state))
        assert [p[:3] for p in problems] == (
            [] if planned == 2 else [("ranks/layer-range", ".metadata", "args.num_layers")]
        )

    @pytest.mark.parametrize(
        "args", [{"num_layers": 4, "heterogeneous_layers_config_path": "x.json"}, {"num_layers": None}]
    )
    def test_layers_that_own_nothing_may_be_left_out(self, folder, args):
        assert found(save(folder, values(**args))) == []


class TestManifest:
    """`integrity.json`, which Megatron-core writes with `verify_integrity=True`."""

    @pytest.fixture
    def signed(self, folder):
        path = save(folder, values())
        files = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(path.iterdir())}
        (path / "integrity.json").write_text(json.dumps({"algorithm": "sha256", "files": files}, indent=2))
        return path

    def test_a_clean_save(self, signed):
        report = verify(signed, ruleset="deep", strict=True)
        assert (report.passed, report.findings) == (True, []), said(report)
        assert "integrity/digest" in [o.rule for o in report.outcomes if o.status == "passed"]

    def test_a_file_that_changed(self, signed):
        (signed / "metadata.json").write_text((signed / "metadata.json").read_text() + " ")
        (problem,) = found(signed, ruleset="deep")
        assert problem[:2] == ("integrity/digest", "metadata.json")
        assert "integrity.json says" in problem[3]

    def test_a_file_that_vanished(self, signed):
        (signed / "extra.bin").touch()
        said_ = json.loads((signed / "integrity.json").read_text())
        said_["files"]["gone.distcp"] = "0" * 64
        (signed / "integrity.json").write_text(json.dumps(said_))
        assert ("integrity/digest", "gone.distcp") in [p[:2] for p in found(signed, ruleset="deep")]

    @pytest.mark.parametrize(
        "content",
        ["[]", "{}", '{"files": 3}', '{"files": {"a": 1, "../b": "x"}}', '{"algorithm": [], "files": {}}', "{"],
    )
    def test_one_of_another_kind_promises_nothing(self, signed, content):
        (signed / "integrity.json").write_text(content)
        report = verify(signed, ruleset="deep")
        assert not [o for o in report.outcomes if o.status == "crashed"], said(report)
        assert "integrity/digest" not in [f.rule for f in report.findings]


def bridge(folder, *, optimizer=True, step=100):
    """What Megatron-Bridge writes in the form `fsdp_dtensor`: all in one distributed checkpoint, counters and configuration beside."""
    torch.manual_seed(0)
    model = {"embedding.word_embeddings.weight": torch.randn(32, 16), "decoder.final_layernorm.weight": torch.ones(16)}
    state = {f"model.{name}": weight for name, weight in model.items()} | {"checkpoint_version": 3.0}
    for name, weight in model.items() if optimizer else ():
        moments = {"exp_avg": torch.rand(weight.shape), "exp_avg_sq": torch.rand(weight.shape)}
        state |= {f"optimizer.state.{name}.{kind}": moment for kind, moment in moments.items()}
        state |= {f"optimizer.state.{name}.step": torch.tensor(float(step)), f"optimizer.param_groups.{name}.lr": 1e-4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder, no_dist=True)
    counters = {"step": torch.tensor(step), "consumed_train_samples": torch.tensor(step * 8)}
    torch.save(counters, folder / "train_state.pt")
    (folder / "run_config.yaml").write_text("checkpoint:\n  ckpt_format: fsdp_dtensor\n  load_optim: true\n")
    (folder.parent / "latest_checkpointed_iteration.txt").write_text(str(step))
    return folder


class TestFsdp:
    def test_a_clean_save(self, folder):
        report = verify(bridge(folder), ruleset="deep", strict=True)
        assert (report.layout.name, report.passed, report.findings) == ("megatron-fsdp", True, []), said(report)
        assert "training continues at iteration 101, after 800 samples" in inspect(folder).resume.sentence

    def test_without_an_optimizer(self, folder):
        ((rule, path, key, message),) = found(bridge(folder, optimizer=False))
        assert (rule, path, key) == ("optimizer/missing", ".metadata", "optimizer")
        assert message.startswith("there is no optimizer state: a resume stops at the missing key")
        assert verify(folder).exit_code == 1

    def test_a_model_that_was_converted_needs_none(self, folder):
        bridge(folder, optimizer=False, step=0)
        assert "optimizer/missing" not in {rule for rule, *_ in found(folder)}

    def test_another_step_than_the_optimizer_counted(self, folder):
        bridge(folder)
        torch.save({"step": torch.tensor(40)}, folder / "train_state.pt")
        assert "optimizer/step-drift" in {rule for rule, *_ in found(folder)}

    @pytest.mark.parametrize(
        "content", [None, [], {}, {"step": "x"}, {"step": torch.tensor(float("nan"))}, {"step": -1}]
    )
    def test_counters_of_the_wrong_kind(self, folder, content):
        bridge(folder)
        torch.save(content, folder / "train_state.pt")
        assert not [o.rule for o in verify(folder).outcomes if o.crash]


class TestClassesInParamGroups:
    """optimizer_cpu_offload puts the optimizer's class there, which the weights-only loader refuses."""

    def test_a_class_is_named(self, folder):
        common = values()
        common["optimizer"]["optimizer"]["param_groups"][0]["cpu_optimizer_cls"] = torch.optim.AdamW
        ((rule, path, _, message),) = found(save(folder, common, old=True))
        assert (rule, path) == ("state/needs-unsafe-load", "common.pt")
        assert message == "torch.load refuses common.pt by default: its pickle imports torch.optim.adamw.AdamW"
        assert verify(folder).exit_code == 0

    def test_without_it_nothing_is_said(self, folder):
        assert found(save(folder, values(), old=True)) == []
