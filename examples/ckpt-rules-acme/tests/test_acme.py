"""Acme's rules and layout, tested with the kit that ckpt-rules brings."""

from __future__ import annotations

import pytest
from ckpt_rules_acme.rules import NoFp32, OwnerFile

from ckpt_rules import inspect, verify
from ckpt_rules.testing import run_rule


@pytest.fixture
def acme_checkpoint(make_checkpoint):
    """A clean checkpoint of Acme's trainer, 20 updates old, made from the plain one."""
    ck = make_checkpoint(dtype="bfloat16", global_step=False)

    def to_acme(state):
        return {"optim": state["optimizer_state_dict"], "sched": state["scheduler_state_dict"]}

    ck.edit("training_state.pth", to_acme).rename("training_state.pth", "acme_state.pt")
    return ck.write_json("acme.json", {"updates": 20}).write_json("owner.json", {"team": "speech"})


def test_a_clean_checkpoint_passes_the_house_rules(acme_checkpoint):
    report = verify(acme_checkpoint, ruleset="acme:house", strict=True)
    assert (report.layout.name, [f.message for f in report.findings if f.severity != "info"]) == ("acme", [])
    assert report.resume == "training continues at optimizer update 21"


def test_inspect_reads_the_manifest(acme_checkpoint):
    assert inspect(acme_checkpoint).layout.name == "acme"


def test_a_manifest_that_went_ahead_of_the_optimizer(acme_checkpoint):
    report = verify(acme_checkpoint.set_key("acme.json", "updates", 520), ruleset="acme:house")
    assert "optimizer/step-drift" in {f.rule for f in report.findings}


@pytest.mark.parametrize(
    ("file", "rule"),
    [
        ("acme_state.pt", "weights/broken-torch-file"),
        ("acme.json", "state/unreadable"),
        ("owner.json", "acme/owner-file"),
        ("model.safetensors", "weights/broken-safetensors"),
    ],
)
def test_a_file_that_is_cut_short_is_reported_once(acme_checkpoint, file, rule):
    report = verify(acme_checkpoint.truncate(file, keep=0.5), ruleset="acme:house")
    assert [(f.rule, f.place.path) for f in report.findings if f.severity != "info"] == [(rule, file)]


def test_weights_that_can_not_be_read_have_no_share(acme_checkpoint):
    acme_checkpoint.truncate("model.safetensors", keep=0.5)
    run_rule(NoFp32(), acme_checkpoint).assert_skipped("is damaged", blocked_by="model.safetensors")


@pytest.mark.parametrize("updates", [-3, "20", None, 2.5])
def test_updates_that_are_no_count(acme_checkpoint, updates):
    report = verify(acme_checkpoint.set_key("acme.json", "updates", updates), ruleset="acme:house")
    assert not report.passed
    assert {f.place.path for f in report.findings if f.severity != "info"} == {"acme.json"}


@pytest.mark.parametrize("file", ["acme_state.pt", "acme.json"])
def test_a_missing_file_is_a_finding(acme_checkpoint, file):
    report = verify(acme_checkpoint.remove(file), ruleset="acme:house")
    assert ("files/missing-required", file) in {(f.rule, f.place.path) for f in report.findings}


def test_weights_in_float32_are_too_wide(make_checkpoint):
    found = run_rule(NoFp32(), make_checkpoint()).assert_one(path="model.safetensors", severity="warning")
    assert found.message.startswith("100% of ")
    run_rule(NoFp32(allowed_share=1), make_checkpoint()).assert_passed()


def test_an_owner_is_asked_for(acme_checkpoint):
    run_rule(OwnerFile(teams=("speech",)), acme_checkpoint).assert_passed()
    run_rule(OwnerFile(teams=("vision",)), acme_checkpoint).assert_one(key="team", message="'speech' is none of vision")
    run_rule(OwnerFile(), acme_checkpoint.replace("owner.json", "{")).assert_one(
        path="owner.json", message="can't be parsed"
    )
    run_rule(OwnerFile(), acme_checkpoint.write_json("owner.json", [])).assert_one(message="names no team")
    run_rule(OwnerFile(), acme_checkpoint.remove("owner.json")).assert_one(
        path="owner.json", message="there is no owner.json"
    )
