"""What the first bytes of a file say, for files that real writers made."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import torch
from safetensors.torch import save

from ckpt_rules.facts.files import Content
from ckpt_rules.readers.sniff import expected_format, sniff


def written(write) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"), io.BytesIO(b""))
    return stream.getvalue()


SAMPLES = [
    (b"", Content.EMPTY),
    (bytes(100), Content.ZEROS),
    (save({"w": torch.ones(2)}), Content.SAFETENSORS),
    (save({}, {"format": "pt"}), Content.SAFETENSORS),
    (written(lambda f: torch.save({"a": 1}, f)), Content.ZIP),
    (written(lambda f: torch.save({"a": 1}, f, _use_new_zipfile_serialization=False)), Content.PICKLE),
    *((pickle.dumps({"a": 1}, protocol), Content.PICKLE) for protocol in (2, 3, 4, 5)),
    (json.dumps({"a": 1}).encode(), Content.JSON),
    (b"\xef\xbb\xbf[1]", Content.JSON),
    (b'  {"cut', Content.JSON),
    (b'[\n      {"a": 1}]', Content.JSON),
    (b'        {"a": 1}', Content.JSON),
    (save({"w": torch.ones(2)})[:8] + b'\n {"w"', Content.SAFETENSORS),
    ((1 << 63).to_bytes(8, "little") + b"{}", Content.SAFETENSORS),
    (save({"w": torch.ones(2)})[:9], Content.BINARY),
    (b"<!DOCTYPE HTML><html>", Content.HTML),
    (b"\n<HTML lang=en>", Content.HTML),
    (b'<?xml version="1.0"?>', Content.XML),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", Content.LFS_POINTER),
    (tar(), Content.TAR),
    (gzip.compress(b"x", mtime=0), Content.GZIP),
    (b"7z\xbc\xaf\x27\x1c" + bytes(30), Content.SEVEN_ZIP),
    (b"\x89HDF\r\n\x1a\n" + bytes(30), Content.HDF5),
    (written(lambda f: np.save(f, np.ones(3))), Content.NUMPY),
    (b"GGUF\x03\x00\x00\x00", Content.GGUF),
    ("step 500, é\n".encode(), Content.TEXT),
    (b"a" + ("é" * 600).encode(), Content.TEXT),
    (b"\x00\x01\x02\xff" * 20, Content.BINARY),
]


@pytest.mark.parametrize(("data", "content"), SAMPLES, ids=[f"{i}-{c.name}" for i, (_, c) in enumerate(SAMPLES)])
def test_content_is_told_from_the_first_bytes(data, content):
    assert sniff(data[:1024], len(data)) is content


@pytest.mark.parametrize(
    ("name", "expected", "certain"),
    [
        ("model.safetensors", "safetensors", True),
        ("training_state.pth", "torch", True),
        ("last.PT", "torch", True),
        ("model_best.pth.tar", "torch", True),
        ("epoch=3.ckpt", "torch", True),
        ("pytorch_model-00001-of-00002.bin", "torch", True),
        ("optimizer.bin", "torch", True),
        ("train.bin", "torch", False),
        ("random_states_0.pkl", "torch", True),
        ("config.json", "json", True),
        ("README.md", None, None),
        ("latest", None, None),
    ],
)
def test_what_a_name_promises(name, expected, certain):
    promised = expected_format(name)
    assert (promised and promised.name, promised and promised.certain) == (expected, certain)
