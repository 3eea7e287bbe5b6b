"""A directory with one file in it."""

from __future__ import annotations

import pytest


@pytest.fixture
def put(tmp_path):
    """`put("x.pt", data)`: a directory that holds this file."""

    def write(name, data):
        path = tmp_path / "ck"
        path.mkdir(exist_ok=True)
        (path / name).write_bytes(data)
        return path

    return write
