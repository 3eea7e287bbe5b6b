"""A directory with one file in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

_SAVE = Path(__file__).parents[2] / "layouts/trainer/fixtures/sft/checkpoint-8"


@pytest.fixture
def put(tmp_path):
    """`put("x.pt", data)`: a directory that holds this file."""

    def write(name, data):
        path = tmp_path / "ck"
        path.mkdir(exist_ok=True)
        (path / name).write_bytes(data)
        return path

    return write


@pytest.fixture
def make_trainer_save():
    """`make_trainer_save(folder)`: a copy of a save of transformers' Trainer."""

    def make(folder):
        shutil.copytree(_SAVE, folder)
        return folder

    return make
