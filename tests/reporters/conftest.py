"""One report that has everything in it, and golden files to compare with: `UPDATE_GOLDEN=1 pytest` writes them again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckpt_rules.report import (
    Counts,
    Crash,
    LayoutSummary,
    Notice,
    Outcome,
    Report,
    RulesetSummary,
    Verdict,
)

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden():
    """Compare text with a golden file."""

    def check(name, text):
        file = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN"):
            file.write_text(text, encoding="utf-8")
        assert text == file.read_text(encoding="utf-8")

    return check


def outcome(rule, status="passed", severity="error", **more):
    return Outcome(
        rule=rule, plugin=more.pop("plugin", rule.partition("/")[0]), summary="Something is bad.", status=status,
        severity=severity, seconds=more.pop("seconds", 0.0004), **more,
    )  # fmt: skip


def finding(rule, message, severity="error", **more):
    place = {k: more.pop(k) for k in ("path", "tensor", "key", "offset") if k in more}
    plugin = rule.partition("/")[0]
    return {"rule": rule, "plugin": plugin, "severity": severity, "message": message, "place": place, **more}


SHARDS = tuple(
    finding(
        "weights/missing-shard",
        "the index names this file, but it is not there",
        path=f"model-{number:05}-of-01399.safetensors",
        help="copy the shards again from where this checkpoint was saved, and verify again",
    )
    for number in range(2, 1394)
)

TRACEBACK = """Traceback (most recent call last):
  File "/site-packages/acme/rules.py", line 12, in check
    ratio = updates / batches
ZeroDivisionError: division by zero
"""


@pytest.fixture
def passing() -> Report:
    """A clean checkpoint."""
    names = ("files/empty", "files/missing-checkpoint", "files/unreadable", "optimizer/missing", "optimizer/step-drift")
    return Report(
        tool_version="0.1.0",
        checkpoint="runs/step-500",
        layout=LayoutSummary(
            name="plain-torch", title="plain torch checkpoint", signs=("training_state.pth", "model.safetensors")
        ),
        ruleset=RulesetSummary(name="default", strict=False),
        verdict=Verdict.PASSED,
        reason="safe to resume; epoch 3 continues: batches 0 to 99 are skipped, 100 to 199 are trained",
        resume="epoch 3 continues: batches 0 to 99 are skipped, 100 to 199 are trained",
        counts=Counts(passed=5, skipped=1),
        outcomes=(
            *(outcome(name) for name in names),
            outcome("scaler/collapsed", "skipped", reason="training_state.pth holds no gradient scaler"),
        ),
        seconds=0.0824,
    )


@pytest.fixture
def failing() -> Report:
    """Everything that a report can hold, names that would spoil a terminal included."""
    rude = "model.\x1b[31m\nlayers\udcff.0.weight"
    return Report(
        tool_version="0.1.0",
        checkpoint="runs/step-\udcff500",
        layout=LayoutSummary(name="plain-torch", title="plain torch checkpoint", signs=("training_state.pth",)),
        ruleset=RulesetSummary(name="team.yaml", strict=True, narrowed=True),
        verdict=Verdict.UNKNOWN,
        reason="cannot tell whether it is safe to resume: 1 rule crashed; it is not safe as far as it was checked: 1,394 errors",
        counts=Counts(passed=4, failed=4, skipped=4, crashed=1, errors=1394, warnings=1, infos=1, ignored=2),
        outcomes=(
            outcome(
                "acme/ratio",
                "crashed",
                plugin="acme",
                crash=Crash(type="ZeroDivisionError", message="division by zero\nand more", traceback=TRACEBACK),
            ),
            outcome("files/empty"),
            outcome("files/unreadable"),
            outcome(
                "optimizer/step-drift",
                "failed",
                "warning",
                options={"tolerance": 8},
                findings=(
                    finding(
                        "optimizer/step-drift",
                        "the optimizer has made 1,200 updates where epoch 3 of 100 batches implies 4,213: 3,013 fewer, tolerance 8",
                        path="training_state.pth",
                        key="optimizer_state_dict.state",
                        data={"updates": 1200, "expected": 4213},
                        help="""
                            take the state that was saved together with these weights,
                            or resume from the save before
                        """,
                    ),
                    finding("optimizer/step-drift", "a smaller drift", "warning", path="training_state.pth"),
                ),
            ),
            outcome("optimizer/missing"),
            outcome("progress/finished", "failed", "info", findings=(
                finding("progress/finished", "the planned end of 3 epochs is reached", "info"),
            )),
            outcome("rng/missing", "passed", "info", findings=tuple(
                finding("rng/missing", "there is no RNG state", path=f"legacy/{n}.pt", ignored="saved before we kept it")
                for n in (1, 2)
            )),
            outcome("scaler/collapsed", "skipped", reason="training_state.pth holds no gradient scaler", seconds=0.0),
            *(
                outcome(f"scheduler/{name}", "skipped", reason="training_state.pth is damaged", blocked_by="training_state.pth")
                for name in ("exhausted", "lr-mismatch", "missing")
            ),
            outcome("weights/missing-shard", "failed", findings=SHARDS),
            outcome(
                "weights/shape-vs-config",
                "failed",
                reason="config.json is damaged",
                findings=(
                    finding(
                        "weights/shape-vs-config",
                        f"{rude} has the größe 3",
                        path="model.safetensors",
                        tensor=rude,
                        offset=1234567,
                    ),
                ),
                seconds=1.25,
            ),
        ),
        notices=(
            Notice(severity="warning", message="team.yaml:9: nothing was found that the ignore of rng/* would silence; delete it"),
            Notice(
                severity="error",
                message="the plugin other (ckpt-rules-other 3) crashed in ckpt_rules_run_finished: ValueError: no",
                fatal=True,
                crash=Crash(type="ValueError", message="no", traceback="Traceback …\nValueError: no\n"),
            ),
        ),
        seconds=2.5,
    )  # fmt: skip


@pytest.fixture
def nothing_there(passing) -> Report:
    """A path that does not exist."""
    missing = finding("files/missing-checkpoint", "'runs/step-50' does not exist", help="did you mean 'runs/step-500'?")
    why = "there is no checkpoint directory to look into"
    rules = [f"{family}/{name}" for family in ("optimizer", "weights") for name in ("a", "b", "c", "d")]
    return passing.model_copy(
        update={
            "checkpoint": "runs/step-50",
            "layout": LayoutSummary(name="none", title="no directory that can be listed"),
            "verdict": Verdict.FAILED,
            "reason": "there is nothing to resume from: 1 error",
            "resume": None,
            "counts": Counts(failed=1, skipped=8, errors=1),
            "outcomes": (
                outcome("files/missing-checkpoint", "failed", findings=(missing,)),
                *(outcome(rule, "skipped", reason=why, blocked_by=".") for rule in rules),
            ),
            "seconds": 0.0012,
        }
    )
