"""What every sample is taken for and found guilty of: written down once, so that a change of design changes none of it.

`python -m tests.cases.snapshot` writes it again, from the root of the repository.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ckpt_rules import verify
from ckpt_rules.opening import open_checkpoint
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.runs import runs_in
from ckpt_rules.storage import LocalStorage

HERE = Path(__file__).parent
WRITTEN = HERE / "snapshot.yaml"
LAYOUTS = HERE.parent / "layouts"
ARCHIVES = ("files", "built", "trainers")


def gather(archive: str, folder: Path) -> None:
    """Put the samples of one archive, or the committed saves of all layouts, into a folder."""
    if archive == "fixtures":
        for fixtures in sorted(LAYOUTS.glob("*/fixtures")):
            shutil.copytree(fixtures, folder / fixtures.parent.name, symlinks=True)
    else:
        with tarfile.open(HERE / f"{archive}.tar.xz") as packed:
            packed.extractall(folder, filter="tar")


def seen(folder: Path) -> dict[str, Any]:
    """Each save by its path: its layout, its findings, and as what it is taken for without one of its files."""
    return {str(save.relative_to(folder)): _of(save) for save in saves(folder)}


def saves(folder: Path) -> Iterator[Path]:
    """Every save below a folder of samples."""
    for sample in sorted(folder.iterdir()):
        groups = sorted(sample.iterdir()) if sample.is_dir() and not any(p.is_file() for p in sample.iterdir()) else []
        for root in groups or [sample]:
            found = sorted({Path(s) for run in runs_in(str(root), installed_plugins()).values() for s in run})
            yield from (save for save in found or [root] if not save.is_symlink())


def _of(save: Path) -> dict[str, Any]:
    report = verify(str(save))
    findings = sorted(f"{f.severity} {f.rule} @ {f.place.path}" for f in report.findings)
    whole = _layout(save)
    changed = {name: found for name, found in _without_each(save) if found != whole}
    entry: dict[str, Any] = {"layout": whole, "verdict": str(report.verdict)}
    return entry | ({"findings": findings} if findings else {}) | ({"without": changed} if changed else {})


def _without_each(save: Path) -> Iterator[tuple[str, str]]:
    """What it is taken for when one entry of its directory is gone."""
    if not save.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=save.parent.parent) as aside:
        for entry in sorted(save.iterdir()):
            os.rename(entry, f"{aside}/gone")
            yield entry.name, _layout(save)
            os.rename(f"{aside}/gone", entry)


def _layout(save: Path) -> str:
    checkpoint, _ = open_checkpoint(LocalStorage(str(save)), installed_plugins())
    return checkpoint.layout.name


def main() -> None:
    """Write the snapshot."""
    found = {}
    for archive in (*ARCHIVES, "fixtures"):
        with tempfile.TemporaryDirectory() as folder:
            gather(archive, Path(folder))
            found[archive] = seen(Path(folder))
            sys.stdout.write(f"{archive}: {len(found[archive])} saves\n")
    WRITTEN.write_text(yaml.safe_dump(found, sort_keys=True, width=10_000), encoding="utf-8")


if __name__ == "__main__":
    main()
