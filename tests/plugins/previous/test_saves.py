"""Which save a checkpoint is compared with: the complete one before it in its run, or the one that the user names."""

from __future__ import annotations

import pytest

from ckpt_rules import UsageError, verify
from ckpt_rules.conventions.saves import saves_before
from ckpt_rules.testing import build_plain_torch
from ckpt_rules_previous.progress import ProgressWentBack
from ckpt_rules_previous.tensors import TensorSet


@pytest.fixture
def run_of_three(tmp_path):
    return [build_plain_torch(tmp_path / f"epoch-{epoch}", epoch=epoch) for epoch in (1, 2, 3)]


def compared_with(checkpoint, run_rule, **options):
    """The save that the rule speaks of, once the progress of the checkpoint is set to nothing."""
    checkpoint.set_key("training_state.pth", "global_step", 1)
    return run_rule(ProgressWentBack(), checkpoint, **options).assert_one().data["previous"]


def test_it_is_the_nearest_lower_number(run_of_three, run_rule):
    assert compared_with(run_of_three[2], run_rule) == "epoch-2"


def test_one_that_lacks_a_file_that_its_layout_needs_is_passed_over(run_of_three, run_rule):
    run_of_three[1].remove("model.safetensors")
    assert compared_with(run_of_three[2], run_rule) == "epoch-1"


def test_where_all_lack_one_the_rule_is_skipped(run_of_three, run_rule):
    for checkpoint in run_of_three[:2]:
        checkpoint.remove("model.safetensors")
    run_rule(TensorSet(), run_of_three[2]).assert_skipped("such as epoch-2, are incomplete or of another layout")


def test_the_first_of_a_run_has_none(run_of_three, run_rule):
    run_rule(TensorSet(), run_of_three[0]).assert_skipped(
        "no earlier save of its run lies beside it, and --previous names none"
    )


def test_the_one_that_is_named_comes_before_all(run_of_three, run_rule):
    assert compared_with(run_of_three[2], run_rule, previous=run_of_three[0].path) == "epoch-1"


def test_one_that_is_named_must_be_there(run_of_three, tmp_path):
    with pytest.raises(UsageError, match=r"the earlier save .*nowhere can't be looked into: there is no checkpoint"):
        verify(run_of_three[2].path, previous=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "names", "expected"),
    [
        ("checkpoint-20", ["checkpoint-100", "checkpoint-9", "checkpoint-16"], ["checkpoint-16", "checkpoint-9"]),
        ("checkpoint-20", ["checkpoint-20", "checkpoint-21"], []),
        ("step_20", ["epoch_1", "step_10"], ["step_10"]),
        (
            "end-epoch=1-step=24.ckpt",
            ["epoch=1-step=20.ckpt", "end-epoch=0-step=12.ckpt"],
            ["end-epoch=0-step=12.ckpt"],
        ),
        ("epoch=2-loss=0.25.ckpt", ["epoch=1-loss=0.75.ckpt", "epoch=3-loss=0.10.ckpt"], ["epoch=1-loss=0.75.ckpt"]),
        ("last.ckpt", ["epoch=1-step=20.ckpt", "last.ckpt"], []),
        ("model-7-2.pt", ["model-6-9.pt"], ["model-6-9.pt"]),
        ("7-2", ["6-9"], []),
    ],
)
def test_saves_are_told_by_the_one_number_that_counts_and_by_nothing_else_in_their_names(name, names, expected):
    assert saves_before(name, names) == expected


class TestOnTheCommandLine:
    @pytest.fixture
    def run(self, capsys):
        from ckpt_rules.cli import main

        def go(*arguments):
            code = main([str(a) for a in arguments])
            return code, *capsys.readouterr()

        return go

    def test_with_an_earlier_save_the_rules_that_read_headers_run_with_any_ruleset(self, run_of_three, run):
        run_of_three[2].set_key("training_state.pth", "global_step", 1)
        code, out, _ = run("verify", run_of_three[2].path, "-r", "quick", "--previous", run_of_three[1].path)
        assert code == 1
        assert "previous/progress-went-back" in out

    def test_without_one_they_run_where_the_ruleset_says_so(self, run_of_three, run):
        run_of_three[2].set_key("training_state.pth", "global_step", 1)
        assert "previous/" not in run("verify", run_of_three[2].path, "-v", "-r", "quick")[1]
        for ruleset in ("default", "deep"):
            assert "previous/progress-went-back" in run("verify", run_of_three[2].path, "-r", ruleset)[1]

    def test_in_a_run_each_save_is_compared_with_the_one_before(self, run_of_three, run):
        run_of_three[1].set_key("training_state.pth", "global_step", 1)
        code, out, _ = run("verify", run_of_three[0].path.parent, "-r", "deep")
        assert code == 1
        assert out.count("error    previous/progress-went-back") == 1
        assert "it was 10 in the previous save, epoch-1" in " ".join(out.split())

    def test_a_run_has_more_than_one_save_before(self, run_of_three, run):
        path = run_of_three[0].path
        code, _, err = run("verify", path.parent, "--previous", path)
        assert code == 2
        assert "--previous names the save before one checkpoint, and there are 3 to verify" in err
