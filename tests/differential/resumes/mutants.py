"""Mutants of a save by number: trainer, seed and number give the same damage every time."""

from __future__ import annotations

import os
import shutil
from random import Random
from typing import Any, NamedTuple

from tests.differential.resumes import files
from tests.differential.resumes.trees import edit

_OF_FILES, _TRIES = 0.15, 20


class Mutant(NamedTuple):
    """file: the one that is damaged; where: the field, '' for the file as a whole; how: the damage."""

    file: str
    where: str
    how: str

    def __str__(self) -> str:
        return f"{self.file} | {self.where} | {self.how}"


def mutate(trainer: str, save: str, target: str, seed: int, number: int) -> Mutant:
    """Write one mutant of a save to a path, at which nothing lies."""
    rng = Random(f"{trainer} {seed} {number}")
    for _ in range(_TRIES):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(save, target)
        try:
            if rng.random() < _OF_FILES:
                return _of_file(rng, save, target)
            return _of_entries(rng, save, target) if trainer.startswith("dcp") else _of_field(rng, save, target)
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError, OverflowError):
            continue  # a format that can't hold what was made: another one, which follows from the number too
    raise AssertionError(f"no mutant {number} of {save}")


def _names(save: str) -> list[str]:
    return sorted(os.listdir(save))


def _of_file(rng: Random, save: str, target: str) -> Mutant:
    """One file is removed, emptied, cut, damaged, that of another name, or a directory."""
    name = rng.choice(_names(save))
    path = os.path.join(target, name)
    with open(path, "rb") as file:
        data = file.read()
    how = rng.choice(
        ("removed", "empty", "half", "one byte less", "another file", "a directory", "one byte other", "text")
    )
    os.remove(path)
    if how == "a directory":
        os.mkdir(path)
    elif how != "removed":
        if how == "another file":
            other = rng.choice([n for n in _names(save) if n != name] or [name])
            how = f"={other}"
        with open(path, "wb") as file:
            file.write(_damaged(rng, data, how, save))
    return Mutant(name, "", how)


def _damaged(rng: Random, data: bytes, how: str, save: str) -> bytes:
    if how.startswith("="):
        with open(os.path.join(save, how[1:]), "rb") as file:
            return file.read()
    at = rng.randrange(len(data))
    return {
        "empty": b"",
        "half": data[: len(data) // 2],
        "one byte less": data[:-1],
        "one byte other": data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :],
        "text": b"<html>404</html>\n",
    }[how]


def _of_field(rng: Random, save: str, target: str) -> Mutant:
    name = rng.choice([n for n in _names(save) if files.has_fields(n)])
    made = edit(rng, files.read(os.path.join(save, name)))
    files.write(os.path.join(target, name), made.tree)
    return Mutant(name, made.where, made.how)


def _of_entries(rng: Random, save: str, target: str) -> Mutant:
    """A field of `.metadata`; or of the state that was saved, which is then saved whole."""
    if rng.random() < 0.35:
        made = edit(rng, files.read(os.path.join(save, files.METADATA)))
        files.write(os.path.join(target, files.METADATA), made.tree)
        return Mutant(files.METADATA, made.where, made.how)
    import torch.distributed.checkpoint as dcp

    made = edit(rng, _nested(save))
    if not isinstance(made.tree, dict):
        raise TypeError("dcp.save takes a mapping")
    shutil.rmtree(target)
    try:
        dcp.save(made.tree, checkpoint_id=target, no_dist=True)
    except Exception as error:  # whatever the writer does not take
        raise ValueError(str(error)) from error
    return Mutant("entries", made.where, made.how)


_states: dict[str, Any] = {}


def _nested(save: str) -> dict[str, Any]:
    """The state in a save of DCP, as it was nested when it was saved."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

    if save not in _states:
        state: dict[str, Any] = {}
        _load_state_dict(state, FileSystemReader(save), planner=_EmptyStateDictLoadPlanner(), no_dist=True)
        _states[save] = state
    return _states[save]
