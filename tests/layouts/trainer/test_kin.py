"""What is built on the Trainer: sentence-transformers, TRL and Seq2Seq. Silent when clean, resumed where we say, damage found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ckpt_rules import inspect, verify
from tests.layouts.killing import damages_of, said, survey_of

FIXTURES = Path(__file__).parent / "fixtures"
"""What make_fixtures.py wrote with sentence-transformers and TRL, and in resumed.json what their own resumes did."""
SENTENCES = FIXTURES / "sentences"
VARIANTS = ("sentences", "sft", "sft-lora", "dpo", "reward")
DENSE = "2_Dense/model.safetensors"

pytestmark = pytest.mark.slow


@pytest.fixture
def copied_here(tmp_path):
    """A copy that a test may damage: `copied_here("model")`, of the sentence-transformers run."""

    def copy(name):
        shutil.copytree(SENTENCES / name, tmp_path / name)
        return tmp_path / name

    return copy


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_they_save_passes_in_strict_mode(variant):
    for checkpoint in sorted((FIXTURES / variant).glob("checkpoint-*")):
        for ruleset in ("deep", "inference"):
            report = verify(checkpoint, ruleset=ruleset, strict=True)
            assert report.layout.name == "transformers-trainer"
            assert report.passed, said(report)
            assert {f.rule for f in report.findings} <= {"progress/finished"}, said(report)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_plan_is_what_the_real_trainer_does(variant):
    record = json.loads((FIXTURES / "resumed.json").read_text())[variant]
    seen, done = record["resumed"]["checkpoint-8"], inspect(FIXTURES / variant / "checkpoint-8")
    assert (done.resume.from_update, done.resume.epoch, done.resume.skipped) == (8, 2, 2)
    assert (seen["started_at_step"], seen["first_step"], seen["last_step"]) == (8, 9, 12)
    assert seen["first_batch"] == record["batches"][start_of(done)]
    assert seen["rates"] == [done.optimizer.lrs[0]]


def start_of(inspected):
    """The batch, counted from the first of an unbroken run, with which the plan continues."""
    return (inspected.resume.epoch - 1) * inspected.progress.total_batches + inspected.resume.skipped


def test_a_sequence_to_sequence_run_resumes_where_we_say(made):
    out = made("trainer/train.py", "seq2seq", "resume")
    record = json.loads((out / "resumed.json").read_text())
    report = verify(out / "run" / "checkpoint-8", ruleset="deep", strict=True)
    assert (report.passed, report.findings) == (True, []), said(report)
    seen, done = record["resumed"]["checkpoint-8"], inspect(out / "run" / "checkpoint-8")
    assert (seen["started_at_step"], seen["first_batch"]) == (
        done.resume.from_update,
        record["batches"][start_of(done)],
    )
    assert (seen["first_step"], seen["rates"]) == (done.resume.from_update + 1, [done.optimizer.lrs[0]])


class TestSentenceTransformers:
    def test_the_weights_are_those_of_every_module(self):
        weights = inspect(SENTENCES / "checkpoint-8").weights
        assert weights.files == ("model.safetensors", DENSE)
        assert weights.parameters == inspect(SENTENCES / "model").weights.parameters

    def test_the_model_by_itself_loads_and_is_nothing_to_resume(self):
        report = verify(SENTENCES / "model", ruleset="inference", strict=True)
        assert (report.layout.name, report.passed, report.findings) == ("sentence-transformers", True, []), said(report)
        (found,) = [f for f in verify(SENTENCES / "model").findings if f.severity == "error"]
        assert (found.rule, found.place.path) == ("files/not-resumable", ".")

    @pytest.mark.parametrize(("name", "ruleset"), [("model", "inference"), ("checkpoint-8", "default")])
    @pytest.mark.parametrize("path", [DENSE, "2_Dense/config.json", "1_Pooling/config.json", "modules.json"])
    def test_a_module_without_what_it_is_built_from(self, copied_here, name, ruleset, path):
        checkpoint = copied_here(name)
        (checkpoint / path).unlink()
        found = [f for f in verify(checkpoint, ruleset=ruleset).findings if f.rule == "files/missing-required"]
        assert [(f.place.path, f.severity) for f in found] == [(path, "error")]

    def test_a_module_that_has_nothing_to_read_may_have_no_directory(self, copied_here):
        checkpoint = copied_here("checkpoint-8")
        shutil.rmtree(checkpoint / "3_Normalize")
        assert verify(checkpoint, strict=True).passed

    def test_weights_of_one_module_are_missing_to_the_optimizer(self, copied_here):
        checkpoint = copied_here("checkpoint-8")
        (checkpoint / DENSE).unlink()
        assert "optimizer/param-mismatch" in {f.rule for f in verify(checkpoint).findings}

    def test_each_damage_is_found(self, tmp_path, survived):
        damages = damages_of(SENTENCES / "checkpoint-8", SENTENCES / "checkpoint-12")
        survived(survey_of(SENTENCES / "checkpoint-8", list(damages), tmp_path), HARMLESS)


CUT = "cut by a byte"
HARMLESS = {
    **{
        f"{name} {CUT}": "the byte is a newline, or what stands for one"
        for name in ("config.json", "tokenizer_config.json", "trainer_state.json")
    },
    **{
        f"{name} of another step": "same names and shapes: only a digest could tell"
        for name in ("model.safetensors", DENSE)
    },
    "rng_state.pth of another step": "random numbers record no step",
    "3_Normalize/config.json missing": "the module is built without it",
    "config_sentence_transformers.json missing": "prompts and the similarity function; the library continues with its defaults",
    "sentence_bert_config.json missing": "the library continues with its defaults",
    "tokenizer.json missing": "some tokenizers have other files, some have none; the library names it when it stops",
    "tokenizer_config.json missing": "the library continues with its defaults",
    "training_args.bin missing": "a resume does not read it",
}
