"""state/refused-field: fields of a real trainer_state.json changed as the Trainer refuses them."""

from __future__ import annotations

import json
import shutil

import pytest

from ckpt_rules import verify

RULE = "state/refused-field"

pytestmark = pytest.mark.slow


@pytest.fixture
def edited(made, tmp_path):
    """A clean save with fields of its trainer_state.json set, or dropped where the value is `...`."""
    run = made("trainer/train.py", "plain") / "run"
    newest = max(run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))

    def edit(**fields):
        copy = tmp_path / newest.name
        shutil.copytree(newest, copy)
        state = json.loads((copy / "trainer_state.json").read_text()) | fields
        (copy / "trainer_state.json").write_text(json.dumps({k: v for k, v in state.items() if v is not ...}))
        return verify(copy)

    return edit


def found(report, rule=RULE):
    return [(f.severity.value, f.place.path, f.place.key, f.message) for f in report.findings if f.rule == rule]


def test_a_clean_state_and_that_of_an_old_release_pass(edited):
    assert found(edited()) == []


def test_what_old_releases_did_not_write_may_be_absent(edited):
    old = edited(stateful_callbacks=..., train_batch_size=..., best_global_step=..., num_input_tokens_seen=...)
    assert found(old) == []


def test_a_field_that_no_release_knows(edited):
    [(severity, path, key, message)] = found(edited(written_by_a_newer_version=1))
    assert (severity, path, key) == ("error", "trainer_state.json", "written_by_a_newer_version")
    assert message.startswith("no release of transformers knows the field 'written_by_a_newer_version'")


def test_a_misspelt_field_is_told_its_name(edited):
    [(_, _, key, message)] = found(edited(logging_steps=..., loging_steps=5))
    assert key == "loging_steps"
    assert "did you mean 'logging_steps'?" in message


@pytest.mark.parametrize("key", ["logging_steps", "save_steps", "train_batch_size", "total_flos", "stateful_callbacks"])
@pytest.mark.parametrize("value", [None, "x", []], ids=["null", "text", "list"])
def test_a_field_that_a_resume_cannot_count_with(edited, key, value):
    [(severity, path, place, message)] = found(edited(**{key: value}))
    assert (severity, path, place) == ("error", "trainer_state.json", key)
    assert message.startswith(f"{key} is {'null' if value is None else repr(value)} and must be a ")


def test_zero_in_a_field_that_the_run_divides_by(edited):
    [(severity, _, key, message)] = found(edited(logging_steps=0, eval_steps=0))
    assert (severity, key) == ("error", "logging_steps")
    assert message == "logging_steps is 0 and must be more than 0: the first step divides by it: ZeroDivisionError"


def test_a_whole_step_that_is_written_with_a_fraction(edited):
    [(severity, _, key, message)] = found(edited(global_step=4.0))
    assert (severity, key) == ("error", "global_step")
    assert message.startswith("global_step is 4.0 and must be written as a whole number, without a fraction")


def test_null_is_right_where_the_trainer_writes_it(edited):
    assert found(edited(best_model_checkpoint=None, eval_steps=None, best_metric=None, log_history=None)) == []


def test_a_path_that_is_a_number(edited):
    [(severity, _, key, _)] = found(edited(best_model_checkpoint=2.5))
    assert (severity, key) == ("error", "best_model_checkpoint")


def test_callbacks_without_the_control(edited):
    [(severity, _, key, _)] = found(edited(stateful_callbacks={}))
    assert (severity, key) == ("warning", "stateful_callbacks.TrainerControl")


def test_no_batch_size_beside_callbacks(edited):
    [(severity, _, key, _)] = found(edited(train_batch_size=...))
    assert (severity, key) == ("warning", "train_batch_size")


def test_a_log_that_is_not_a_list(edited):
    [(severity, _, key, message)] = found(edited(log_history={}), "progress/log-disagrees")
    assert (severity, key) == ("error", "log_history")
    assert "not a list" in message
