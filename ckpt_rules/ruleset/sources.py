"""Where rulesets lie: built-in and plugins' names, paths, and the text behind them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ckpt_rules.ruleset.mistakes import Mark, listed, nearest, suggestion

if TYPE_CHECKING:
    from ckpt_rules.plugins import Plugins

MAX_BYTES = 1 << 18
_SUFFIXES = (".yaml", ".yml")


class UnknownSourceError(Exception):
    """There is no such ruleset or file, or it can't be opened; its text says why and what there is."""


class UnreadableTextError(Exception):
    """The file is there, but what it holds is not text that could be YAML."""

    def __init__(self, message: str, mark: Mark | None = None) -> None:
        self.mark = mark
        super().__init__(message)


def builtin_rulesets() -> Mapping[str, Path]:
    """The rulesets that come with ckpt-rules: their files by name, sorted."""
    installed = Path(__file__).parents[1] / "_rulesets"
    folder = installed if installed.is_dir() else Path(__file__).parents[2] / "rulesets"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def is_path(name: str) -> bool:
    """Whether a ruleset's name is a path: it has a separator or ends in .yaml or .yml."""
    return os.sep in name or name.lower().endswith(_SUFFIXES)


def find_ruleset(name: str, plugins: Plugins, folder: str = "") -> Path:
    """The file of a ruleset; relative paths start at `folder`. Raises `UnknownSourceError` for a name that nobody has."""
    if is_path(name):
        return Path(folder, name)
    known = {**builtin_rulesets(), **plugins.rulesets}
    if name in known:
        return known[name]
    raise UnknownSourceError(
        f"there is no ruleset {name!r}{suggestion(name, known)}{_same_name(name, folder)}"
        f"{_absent_plugin(name.partition(':')[0], plugins)}; there are {listed(known)}, and paths such as ./team.yaml"
    )


def _same_name(name: str, folder: str) -> str:
    return f"; for the file of that name, write './{name}'" if os.path.isfile(os.path.join(folder, name)) else ""


def _absent_plugin(name: str, plugins: Plugins) -> str:
    if name in plugins.disabled:
        return f"; the plugin {name} is left out of this run"
    broken = next((p for p in plugins.broken if p.name == name and p.crash), None)
    if broken and broken.crash:
        return f"; the plugin {broken} could not be loaded: {broken.crash.type}: {broken.crash.message}"
    return ""


def identity(path: Path) -> str:
    """What tells one file from another, however its path is written."""
    try:
        return os.path.realpath(path)
    except ValueError:
        raise UnknownSourceError(f"{str(path)!r} is not a path: it holds a NUL character") from None


def read_text(path: Path) -> str:
    """The text of a ruleset file. Only a regular file is opened: a FIFO would keep us waiting for ever."""
    content = _read_bytes(path)
    if len(content) > MAX_BYTES:
        raise UnreadableTextError(f"the file is larger than {MAX_BYTES:,} bytes, which no ruleset needs")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        mark = Mark(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))
        byte = content[error.start]
        raise UnreadableTextError(f"the byte 0x{byte:02x} is not UTF-8; save the file as UTF-8", mark) from None


def _read_bytes(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UnknownSourceError(f"{str(path)!r} is a directory, not a YAML file")
        if not stat.S_ISREG(mode):
            raise UnknownSourceError(f"{str(path)!r} is not a regular file")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UnknownSourceError(f"there is no file {str(path)!r}{nearest_file(path, _SUFFIXES)}") from None
    except OSError as error:
        raise UnknownSourceError(f"{str(path)!r} can't be read: {error.strerror or error}") from None


def nearest_file(path: Path, suffixes: tuple[str, ...]) -> str:
    """What to say of a file that is not there: the one beside it whose name is near, or that there is no directory."""
    try:
        names = [e.name for e in os.scandir(path.parent) if e.name.lower().endswith(suffixes)]
    except (OSError, ValueError):
        return f": there is no directory {str(path.parent)!r} that can be listed"
    stems = {os.path.splitext(name)[0]: name for name in names}
    near = nearest(path.stem, stems)
    return f" (did you mean {stems[near]!r}?)" if near else ""
