"""What the scripts of this folder wrote with the trainers' own libraries, and what those did when they were resumed."""

from __future__ import annotations

import json
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures"


def write_seen(trainer: str, run: str, seen: object) -> None:
    """Add a run to resumed.json, which lies beside the runs of one trainer."""
    path = FIXTURES / trainer / "resumed.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**before, run: seen}, indent=1, sort_keys=True) + "\n")


def seen_of(trainer: str) -> dict[str, dict[str, object]]:
    """What a trainer did first when it was resumed, by `run/file`."""
    runs = json.loads((FIXTURES / trainer / "resumed.json").read_text())
    return {f"{run}/{file}": seen for run, files in runs.items() for file, seen in files.items()}
