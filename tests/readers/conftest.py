"""Readers, called on bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckpt_rules.facts.tensors import SafetensorsFile, TorchFile
from ckpt_rules.readers.safetensors.file import read_safetensors
from ckpt_rules.readers.torch.file import read_torch_file
from ckpt_rules.storage import LocalSource


class Reader:
    """Writes bytes to a file and reads them as a format."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "file"

    def safetensors(self, data: bytes) -> SafetensorsFile:
        self.path.write_bytes(data)
        with LocalSource(self.path) as source:
            return read_safetensors(source, "file")

    def torch(self, data: bytes) -> TorchFile:
        self.path.write_bytes(data)
        with LocalSource(self.path) as source:
            return read_torch_file(source, "file")


@pytest.fixture
def reader(tmp_path) -> Reader:
    return Reader(tmp_path)
