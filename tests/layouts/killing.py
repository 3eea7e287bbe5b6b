"""Damages a checkpoint in every way that applies to any file, and counts which of them are found at the right file.

survey = survey_of(checkpoint, damages_of(checkpoint, other_step), tmp_path)
survived(survey, HARMLESS)      # a fixture: these and no others live, each for its reason; shown at the end of the run
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ckpt_rules import Report, inspect, verify


@dataclass(frozen=True)
class Damage:
    """name: `optimizer.pt cut`; path: the file that a finding must name, relative to the checkpoint"""

    name: str
    path: str
    apply: Callable[[Path], None] = field(repr=False)


@dataclass(frozen=True)
class Survey:
    """What became of each damage: the rules that found it, or nothing; `layout` is that of the checkpoint as it was."""

    killed: dict[str, list[str]]
    survivors: dict[str, str]
    layout: str = ""

    def __str__(self) -> str:
        total = len(self.killed) + len(self.survivors)
        return f"{len(self.killed)} of {total} damages found; survivors: {sorted(self.survivors) or 'none'}"


def damages_of(checkpoint: Path, other: Path | None = None) -> Iterator[Damage]:
    """Each file missing, empty, cut to half, cut by its last byte, full of zeros, or replaced by that of another save."""
    for path in sorted(p for p in checkpoint.rglob("*") if p.is_file()):
        name = path.relative_to(checkpoint).as_posix()
        yield Damage(f"{name} missing", name, lambda top, name=name: (top / name).unlink())
        if not path.stat().st_size:
            continue
        yield Damage(f"{name} empty", name, lambda top, name=name: (top / name).write_bytes(b""))
        for what, change in _CHANGES.items():
            yield Damage(f"{name} {what}", name, lambda top, name=name, change=change: _change(top / name, change))
        twin = other / name if other else None
        if twin and twin.is_file() and twin.read_bytes() != path.read_bytes():
            yield Damage(f"{name} of another step", name, lambda top, name=name, twin=twin: _replace(top / name, twin))


_CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "cut to half": lambda data: data[: len(data) // 2],
    "cut by a byte": lambda data: data[:-1],
    "all zeros": lambda data: bytes(len(data)),
}


def _change(path: Path, change: Callable[[bytes], bytes]) -> None:
    data = path.read_bytes()
    path.unlink()  # some writers leave links, and mode 0600
    path.write_bytes(change(data))


def _replace(path: Path, twin: Path) -> None:
    path.unlink()
    shutil.copy2(twin, path)


def json_value(path: str, key: str, value: object) -> Damage:
    """Another value under a key of a JSON file, at its top."""

    def apply(top: Path) -> None:
        values = json.loads((top / path).read_text())
        (top / path).write_text(json.dumps({**values, key: value}))

    return Damage(f"{path}: {key} = {value!r}", path, apply)


def torch_value(path: str, keys: tuple[object, ...], value: object) -> Damage:
    """Another value in a file by torch.save, which is loaded and saved again; `keys` lead to it."""

    def apply(top: Path) -> None:
        import torch

        whole = torch.load(top / path, weights_only=False)
        inside = whole
        for key in keys[:-1]:
            inside = inside[key]
        inside[keys[-1]] = value
        torch.save(whole, top / path)

    return Damage(f"{path}: {'.'.join(map(str, keys))} = {value!r}", path, apply)


def survey_of(
    checkpoint: Path, damages: Iterator[Damage] | list[Damage], work: Path, *, ruleset: str = "default"
) -> Survey:
    """Apply each damage to a fresh copy with the same name, verify it, and see whether a finding names the file."""
    killed: dict[str, list[str]] = {}
    survivors: dict[str, str] = {}
    clean = [(f.rule, f.place, f.message) for f in verify(checkpoint, ruleset=ruleset).findings]
    for number, damage in enumerate(damages):
        copy = work / f"damage-{number}" / checkpoint.name
        shutil.copytree(checkpoint, copy, symlinks=True)
        damage.apply(copy)
        report = verify(copy, ruleset=ruleset)
        new = [f for f in report.findings if (f.rule, f.place, f.message) not in clean]
        rules = [f.rule for f in new if names(f, damage.path)]
        if rules:
            killed[damage.name] = rules
        else:
            survivors[damage.name] = said(report)
        shutil.rmtree(copy.parent)
    layout = inspect(checkpoint).layout
    return Survey(killed, survivors, layout.name if layout else "no layout")


def names(finding: object, path: str) -> bool:
    """Whether a finding names the file: as its place, or in its message."""
    return finding.place.path == path or path.rpartition("/")[2] in finding.message


def said(report: Report) -> str:
    """All that a report says, for a reader who must find out why a damage lives."""
    return f"{report.verdict.value}: {report.reason} {[(f.rule, f.place.path, f.message) for f in report.findings]}"
