"""The states of data loaders: in the save, or in a directory beside the saves that has one for each (`energon/iter_N`)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, DataLoaders, LoaderState, Recorded, names_beside, own_name

_LOADER = re.compile(r"train_dataloader_dprank(\d{3,6})\.pt")
_RANKS = "args.data_parallel_size"
_ENERGON = "energon"
_SAVE = re.compile(r"iter_\d{1,12}")
_MOST = 5
"""Directories beside the save that are looked into."""

_STOPS = "a resume stops: each rank reads its own state, and there must be as many states as ranks"


def dataloaders(checkpoint: Checkpoint, arguments: Mapping[object, object], path: str) -> DataLoaders:
    """A file for each data-parallel rank, wherever in the save it lies, or beside it.

    arguments: of the run, which lie in the file at `path`
    """
    size = arguments.get("data_parallel_size")
    world = None if size is None else Recorded("world_size", size, path, _RANKS)
    if states := tuple(_states((e.path, e.name) for e in checkpoint.listing.files("*.pt"))):
        return DataLoaders(states, world)
    name = own_name(checkpoint)
    elsewhere = None
    for folder in _folders(checkpoint, arguments):
        saves = [save for save in names_beside(checkpoint, folder) if _SAVE.fullmatch(save)]
        if name in saves:
            inside = ((f"../{folder}/{name}/{file}", file) for file in names_beside(checkpoint, f"{folder}/{name}"))
            states = tuple(_states(inside))
            return DataLoaders(states, world, stops=_STOPS if folder == _ENERGON else None, elsewhere=f"../{folder}")
        if any(_states_in(checkpoint, f"{folder}/{save}") for save in saves[-_MOST:]):
            elsewhere = elsewhere or f"../{folder}"
    return DataLoaders((), world, elsewhere=elsewhere)


def _folders(checkpoint: Checkpoint, arguments: Mapping[object, object]) -> list[str]:
    """Directories beside the save that are named for such states, or by the run's arguments."""
    named = os.path.basename(str(arguments.get("dataloader_save") or "").rstrip("/"))
    siblings = (name for name in checkpoint.listing.siblings if name in (_ENERGON, named) or "dataloader" in name)
    return sorted(siblings)[:_MOST]


def _states(files: Iterator[tuple[str, str]]) -> Iterator[LoaderState]:
    found = ((path, _LOADER.fullmatch(name)) for path, name in files)
    return (LoaderState(path, "", rank=int(match[1])) for path, match in found if match)


def _states_in(checkpoint: Checkpoint, folder: str) -> bool:
    return any(_LOADER.fullmatch(name) for name in names_beside(checkpoint, folder))
