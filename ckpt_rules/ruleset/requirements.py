"""What a ruleset needs beside itself: installed distributions, and local files with rules."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ckpt_rules.ruleset.loading import Layer
from ckpt_rules.ruleset.mistakes import Mistakes, quoted, suggestion
from ckpt_rules.ruleset.sources import nearest_file

if TYPE_CHECKING:
    from ckpt_rules.plugins import Plugins


def check_required(layers: Sequence[Layer], plugins: Plugins, mistakes: Mistakes) -> None:
    """Every distribution that the files require is installed in a version that will do, or it is a mistake."""
    for layer in layers:
        for index, text in enumerate(layer.content.requires):
            problem = _unmet(text, plugins)
            if problem:
                mistakes.add(layer.file, layer.mark("requires", index), problem)


def _unmet(text: str, plugins: Plugins) -> str | None:
    from packaging.requirements import Requirement

    try:
        wanted = Requirement(text)
        applies = wanted.marker is None or wanted.marker.evaluate()
    except ValueError:
        return f"{quoted(text)} is not a requirement; it reads like 'ckpt-rules-acme>=1.2'"
    if not applies:
        return None
    try:
        version = metadata.version(wanted.name)
        if wanted.specifier.contains(version, prereleases=True):
            return None
    except metadata.PackageNotFoundError:
        near = suggestion(wanted.name, {p.distribution for p in plugins.plugins})
        return f"{quoted(text)} is required, but {wanted.name} is not installed{near}; run pip install {quoted(text)}"
    except (TypeError, ValueError):
        return f"{quoted(text)} is required, but what is installed says no version that can be compared; reinstall it"
    return f"{quoted(text)} is required, but version {version} is installed; run pip install {quoted(text)}"


def with_local_files(layers: Sequence[Layer], plugins: Plugins, mistakes: Mistakes) -> tuple[Plugins, bool]:
    """The plugins with the Python files that the layers name, and whether all of these are there.

    A file counts once, however its path is written.
    """
    files: dict[str, Path] = {}
    complete = True
    for layer in layers:
        for index, name in enumerate(layer.content.plugins):
            path = Path(os.path.dirname(layer.file), name)
            problem = _unusable(name, path, plugins)
            if problem:
                complete = False
                mistakes.add(layer.file, layer.mark("plugins", index), problem)
            else:
                files.setdefault(os.path.realpath(path), path)
    return plugins.with_files(files.values()), complete


def _unusable(name: str, path: Path, plugins: Plugins) -> str | None:
    if not name.endswith(".py"):
        if name in {p.name for p in plugins.plugins}:
            return f"{name!r} is an installed plugin and needs no mention; plugins takes Python files"
        return (
            f"{quoted(name)} is not Python file such as ./our_rules.py; to demand an installed plugin, write requires"
        )
    try:
        if path.is_file():
            return None
        is_there = path.exists()
    except (OSError, ValueError) as error:
        return f"{quoted(str(path))} can't be read: {error}"
    if is_there:
        return f"{quoted(str(path))} is not a regular file"
    return f"there is no file {quoted(str(path))}{nearest_file(path, ('.py',))}"
