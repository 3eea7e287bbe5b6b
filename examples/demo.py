"""What ckpt-rules does, in half a minute: trains a small model, verifies its save, then spoils copies and verifies those.

Ends with 0 only if every verdict was the one that it should be.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ckpt_rules.testing import CheckpointDir

HERE = Path(__file__).parent
STATE, WEIGHTS, OPTIMIZER = "training_state.pth", "model.safetensors", "optimizer_state_dict"


@dataclass(frozen=True)
class Damage:
    """One way to spoil a checkpoint, and the rule that must see it."""

    title: str
    rule: str
    spoil: Callable[[CheckpointDir], object]


def misspell(checkpoint: CheckpointDir) -> None:
    checkpoint.rename_key(STATE, OPTIMIZER, "optimizer_state_dit")


def advance(checkpoint: CheckpointDir) -> None:
    checkpoint.edit(STATE, lambda state: state | {"epoch": 9, "global_step": 9 * state["total_batches"], "step": 0})


DAMAGES = [
    Damage(
        "the disk was full: the weights are cut short", "weights/broken-safetensors", lambda c: c.truncate(WEIGHTS, 0.8)
    ),
    Damage(
        "power loss: a block that never reached the disk",
        "weights/broken-safetensors",
        lambda c: c.zero(WEIGHTS, 0, 4096),
    ),
    Damage("killed while saving: half a training state", "weights/broken-torch-file", lambda c: c.truncate(STATE, 0.5)),
    Damage("cloned without git-lfs: a pointer, no weights", "files/placeholder", lambda c: c.lfs_pointer(WEIGHTS)),
    Damage("exported for inference: no training state", "files/missing-required", lambda c: c.remove(STATE)),
    Damage("a typing error in the save code", "state/misspelled-field", misspell),
    Damage("a counter that ran ahead of the optimizer", "optimizer/step-drift", advance),
    Damage(
        "an optimizer that was never saved",
        "optimizer/empty-state",
        lambda c: c.set_key(STATE, f"{OPTIMIZER}.state", {}),
    ),
]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ckpt-rules-demo-") as directory:
        run = Path(directory) / "run"
        say("Training a small model, and interrupting it after 75 batches")
        command(sys.executable, str(HERE / "train_and_resume.py"), "--out", str(run), "--stop-after", "75")
        saved = CheckpointDir(run / "step-75")
        say("Its save, verified: it passes")
        code, _ = verify("run/step-75", cwd=run.parent)
        wrong = [] if code == 0 else ["the clean checkpoint did not pass"]
        for number, damage in enumerate(DAMAGES, 1):
            copy = saved.copy(run.parent / f"damage-{number}" / "step-75")
            damage.spoil(copy)
            say(f"Damage {number} of {len(DAMAGES)}: {damage.title}")
            code, text = verify(f"damage-{number}/step-75", "--quiet", cwd=run.parent)
            if code != 1 or damage.rule not in text:
                wrong.append(f"{damage.title}: exit code {code}, and {damage.rule} should have said why")
    say("Summary")
    print(
        "\n".join(wrong) or f"one clean checkpoint passed, {len(DAMAGES)} damaged ones failed, each for its own reason"
    )
    sys.exit(1 if wrong else 0)


def verify(path: str, *flags: str, cwd: Path) -> tuple[int, str]:
    return command(sys.executable, "-m", "ckpt_rules", "verify", path, *flags, cwd=cwd)


def command(*argv: str, cwd: Path | None = None) -> tuple[int, str]:
    """Run a program, show what it prints, and return its exit code and that text."""
    done = subprocess.run(argv, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    print(done.stdout, end="", flush=True)
    return done.returncode, done.stdout


def say(what: str) -> None:
    print(f"\n=== {what} ===\n", flush=True)


if __name__ == "__main__":
    main()
