"""Tensors, torch files and safetensors of the kit's own: byte for byte what the real libraries would read and write."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ckpt_rules.testing import CheckpointDir, Tensor, build_plain_torch
from ckpt_rules.testing.files import load_safetensors, save_safetensors
from ckpt_rules.testing.torch_reader import read_torch
from ckpt_rules.testing.torch_writer import write_torch

DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8", "bool"]
PLAIN = {
    "none": None,
    "flags": [True, False],
    "numbers": [0, -1, 255, 2**31 - 1, -(2**31), 2**31, -(2**63), 2**200, 1.5, -0.0, float("inf")],
    "text": ["", "abc", "μ-Transfer", "\x00\n"],
    "bytes": [b"", b"\x00\xff"],
    "nested": {"a": {"b": ({"c": []}, ())}},
    7: "an integer as a key",
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
class TestTorchFiles:
    def test_plain_values_are_read_by_torch_and_by_the_kit(self, tmp_path, legacy):
        write_torch(tmp_path / "f.pt", PLAIN, legacy=legacy)
        assert torch.load(tmp_path / "f.pt", weights_only=True) == PLAIN
        assert read_torch(tmp_path / "f.pt") == PLAIN

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_tensors_of_every_dtype_are_read_by_torch_and_by_the_kit(self, tmp_path, legacy, dtype):
        tensor = Tensor.of([0, 1, 1, 0, 1, 1], (2, 3), dtype)
        write_torch(tmp_path / "f.pt", {"t": tensor}, legacy=legacy)
        loaded = torch.load(tmp_path / "f.pt", weights_only=True)["t"]
        assert (loaded.dtype, loaded.tolist()) == (getattr(torch, dtype), [[0, 1, 1], [0, 1, 1]])
        assert read_torch(tmp_path / "f.pt") == {"t": tensor}

    def test_what_torch_wrote_is_read_by_the_kit(self, tmp_path, legacy):
        large = torch.arange(12.0).reshape(3, 4)
        value = {"view": large[1:], "parameter": torch.nn.Parameter(large), "step": torch.tensor(7.0), **PLAIN}
        torch.save(value, tmp_path / "f.pt", _use_new_zipfile_serialization=not legacy)
        read = read_torch(tmp_path / "f.pt")
        assert read["view"] == Tensor.of(range(4, 12), (2, 4))
        assert read["parameter"] == Tensor.of(range(12), (3, 4))
        assert read["step"] == Tensor.full((), 7)
        assert {k: v for k, v in read.items() if k in PLAIN} == PLAIN

    def test_one_tensor_under_two_names_is_stored_once(self, tmp_path, legacy):
        tied = Tensor.random((100,))
        write_torch(tmp_path / "f.pt", {"embed": tied, "head": tied}, legacy=legacy)
        loaded = torch.load(tmp_path / "f.pt", weights_only=True)
        assert loaded["embed"].data_ptr() == loaded["head"].data_ptr()


def test_the_entries_of_a_zip_lie_where_torch_puts_them(tmp_path):
    write_torch(tmp_path / "ours.pt", {"a": Tensor.random((3,)), "b": Tensor.random((50,))})
    torch.save({"a": torch.zeros(3), "b": torch.zeros(50)}, tmp_path / "theirs.pt")
    names = {}
    for file in ("ours", "theirs"):
        with zipfile.ZipFile(tmp_path / f"{file}.pt") as archive:
            assert archive.testzip() is None
            names[file] = [n.removeprefix(file) for n in archive.namelist()]
            starts = [data_start(archive, info) for info in archive.infolist() if "/data/" in info.filename]
            assert [start % 64 for start in starts] == [0, 0]
    assert names["ours"] == names["theirs"]


def data_start(archive, info):
    archive.fp.seek(info.header_offset + 26)
    header = archive.fp.read(4)
    return info.header_offset + 30 + int.from_bytes(header[:2], "little") + int.from_bytes(header[2:], "little")


def test_a_strided_tensor_that_torch_wrote_is_refused_rather_than_misread(tmp_path):
    torch.save(torch.arange(6.0).reshape(2, 3).t(), tmp_path / "f.pt")
    with pytest.raises(ValueError, match=r"strides \(1, 3\)"):
        read_torch(tmp_path / "f.pt")


def test_nothing_in_a_file_is_ever_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    for legacy in (False, True):
        torch.save(Harmful(), tmp_path / "f.pt", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ValueError, match=r"asks for posix\.mkdir"):
            read_torch(tmp_path / "f.pt")
        with pytest.raises(pickle.UnpicklingError):
            CheckpointDir(tmp_path).drop_key("f.pt", "epoch")
    (tmp_path / "f.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ValueError, match=r"asks for posix\.mkdir"):
        read_torch(tmp_path / "f.pt")
    assert not (tmp_path / "harm").exists()


def test_a_value_that_can_not_be_pickled_without_torch_is_named(tmp_path):
    with pytest.raises(TypeError, match="without torch the kit can't pickle a PosixPath"):
        CheckpointDir(tmp_path, with_torch=False).write_torch("f.pt", {"dir": tmp_path})


class TestSafetensors:
    def test_the_file_is_byte_for_byte_the_one_that_safetensors_writes(self, tmp_path):
        tensors = {f"{d}.{n}": Tensor.of([0, 1, 1], dtype=d) for d in DTYPES for n in "ba"}
        save_safetensors(tmp_path / "ours.safetensors", tensors, {"format": "pt"})
        real = {name: torch.tensor([0, 1, 1], dtype=getattr(torch, t.dtype)) for name, t in tensors.items()}
        save_file(real, tmp_path / "theirs.safetensors", {"format": "pt"})
        loaded = load_file(tmp_path / "ours.safetensors")
        assert {k: v.tolist() for k, v in loaded.items()} == {k: v.tolist() for k, v in real.items()}
        assert (tmp_path / "ours.safetensors").stat().st_size == (tmp_path / "theirs.safetensors").stat().st_size

    def test_metadata_and_values_come_back(self, tmp_path):
        tensors = {"a": Tensor.random((2, 3), dtype="bfloat16"), "b": Tensor.full((), 7, "int64")}
        save_safetensors(tmp_path / "f.safetensors", tensors, {"format": "pt"})
        assert load_safetensors(tmp_path / "f.safetensors", with_torch=False) == (tensors, {"format": "pt"})
        with safe_open(tmp_path / "f.safetensors", "pt") as file:
            assert file.metadata() == {"format": "pt"}


class TestTensor:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_values_come_back(self, dtype):
        assert Tensor.of([0, 1, 1], dtype=dtype).values() == (0, 1, 1)

    def test_bytes_that_do_not_fit_the_shape_are_refused(self):
        with pytest.raises(ValueError, match=r"7 bytes do not make a float32 tensor of shape \(2,\)"):
            Tensor("float32", (2,), bytes(7))

    def test_an_unknown_dtype_is_named_with_those_that_exist(self):
        with pytest.raises(ValueError, match="there is no dtype 'fp32'; the kit knows float64, float32"):
            Tensor.of([1.0], dtype="fp32")

    def test_tensors_of_the_kit_may_be_mixed_into_files_where_torch_is_installed(self, tmp_path):
        ck = CheckpointDir(tmp_path).write_torch("f.pt", {"weights": [Tensor.of([1.5])]})
        assert torch.load(ck / "f.pt", weights_only=True)["weights"][0].tolist() == [1.5]


def test_the_whole_kit_works_where_neither_torch_nor_numpy_nor_safetensors_are_installed(tmp_path):
    code = """
import sys
for name in ("torch", "safetensors", "numpy"):
    sys.modules[name] = None
from ckpt_rules import verify
from ckpt_rules.testing import build_plain_torch
ck = build_plain_torch(sys.argv[1])
assert verify(ck, strict=True).passed
ck.set_key("training_state.pth", "epoch", 9).edit("model.safetensors", lambda t: dict(list(t.items())[2:]))
print(sorted({f.rule for f in verify(ck).findings}))
"""
    argv = [sys.executable, "-c", code, str(tmp_path / "ck")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "optimizer/step-drift" in done.stdout
    assert "optimizer/param-mismatch" in done.stdout


def test_an_edited_file_is_still_one_that_torch_loads(tmp_path):
    ck = build_plain_torch(tmp_path / "ck", with_torch=False)
    ck.set_key("training_state.pth", "optimizer_state_dict.param_groups.1.betas.0", 0.5)
    ck.set_key("training_state.pth", "optimizer_state_dict.state.0.step", Tensor.full((), 99))
    state = torch.load(ck / "training_state.pth", weights_only=True)["optimizer_state_dict"]
    assert state["param_groups"][1]["betas"] == (0.5, 0.999)
    assert state["state"][0]["step"] == torch.tensor(99.0)
