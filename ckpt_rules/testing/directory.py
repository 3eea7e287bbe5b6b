"""A checkpoint directory in a test: look at it, add files to it, damage it in named ways."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

from ckpt_rules.testing import files, keys
from ckpt_rules.testing.tensor import holds_tensor


class CheckpointDir:
    """A directory with the files of a checkpoint; made where it does not exist.

    Every method that writes or damages returns the directory itself, so that calls can be chained. `file` is a path
    relative to it. `with_torch` says whether torch files and safetensors are loaded and saved by torch or by the kit, with
    tensors of the one or the other; None leaves it to whether torch is installed. A damage that would change nothing raises `ValueError`: a test that rests on it would prove nothing.
    """

    def __init__(self, path: str | os.PathLike[str], *, with_torch: bool | None = None) -> None:
        self.path = Path(path)
        self.with_torch = with_torch
        self.path.mkdir(parents=True, exist_ok=True)

    def __fspath__(self) -> str:
        return str(self.path)

    def __truediv__(self, file: str) -> Path:
        return self.path / file

    def __repr__(self) -> str:
        return f"CheckpointDir({str(self.path)!r})"

    def copy(self, to: str | os.PathLike[str]) -> CheckpointDir:
        """A copy of the whole directory at `to`, which must not exist."""
        shutil.copytree(self.path, to, symlinks=True)
        return CheckpointDir(to, with_torch=self.with_torch)

    def remove(self, file: str) -> Self:
        """Delete a file, or a directory with all that is in it."""
        path = self._existing(file)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        return self

    def rename(self, file: str, to: str) -> Self:
        """Give a file another name."""
        self._existing(file).rename(self._new(to))
        return self

    def replace(self, file: str, data: bytes | str) -> Self:
        """Write these bytes, or this text as UTF-8, whether or not the file exists."""
        self._new(file).write_bytes(data.encode() if isinstance(data, str) else data)
        return self

    def swap_from(self, other: str | os.PathLike[str], file: str) -> Self:
        """Take a file from another checkpoint, as a save that mixes two steps does."""
        theirs = (Path(other) / file).read_bytes()
        if theirs == self._existing(file).read_bytes():
            raise ValueError(f"{file} is the same in both checkpoints, so swapping it changes nothing")
        return self.replace(file, theirs)

    def lfs_pointer(self, file: str) -> Self:
        """Put a git-LFS pointer in a file's place, as a clone without `git lfs pull` does."""
        data = self._existing(file).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n"
        return self.replace(file, text)

    def empty(self, file: str) -> Self:
        """Cut a file to zero bytes."""
        return self.truncate(file, keep=0)

    def truncate(self, file: str, keep: float = 0.5) -> Self:
        """Cut a file short: an int is the bytes that stay, a float the share of the file that stays."""
        data = self._existing(file).read_bytes()
        count = keep if isinstance(keep, int) else int(len(data) * keep)
        if not 0 <= count < len(data):
            raise ValueError(f"keeping {count:,} bytes of the {len(data):,} of {file} does not cut it short")
        return self.replace(file, data[:count])

    def zero(self, file: str, start: int = 0, length: int | None = None) -> Self:
        """Overwrite bytes with zeros, as a block that never reached the disk; to the end unless `length` is given."""
        data = bytearray(self._existing(file).read_bytes())
        end = len(data) if length is None else start + length
        if not 0 <= start < end <= len(data):
            raise ValueError(f"bytes {start:,} to {end:,} do not lie in the {len(data):,} bytes of {file}")
        if not any(data[start:end]):
            raise ValueError(f"bytes {start:,} to {end:,} of {file} are zero already")
        data[start:end] = bytes(end - start)
        return self.replace(file, bytes(data))

    def flip_bit(self, file: str, offset: int, bit: int = 0) -> Self:
        """Flip one bit of one byte; a negative offset counts from the end."""
        data = bytearray(self._existing(file).read_bytes())
        if not -len(data) <= offset < len(data):
            raise ValueError(f"there is no byte {offset:,} in the {len(data):,} bytes of {file}")
        data[offset] ^= 1 << bit
        return self.replace(file, bytes(data))

    def append(self, file: str, data: bytes) -> Self:
        """Add bytes at the end of a file."""
        if not data:
            raise ValueError(f"appending no bytes to {file} changes nothing")
        return self.replace(file, self._existing(file).read_bytes() + data)

    def edit(self, file: str, change: Callable[[Any], Any]) -> Self:
        """Load a file, change what it holds, and save it in the same format.

        change: called with the loaded object (torch file: what `torch.load` gives; JSON: the parsed value; safetensors:
                a dictionary of tensors by name). What it returns is saved; None means that it changed the object itself.
        """
        before, after = self._edited(file, change)
        if before == after:
            raise ValueError(f"the edit of {file} changed nothing")
        return self

    def edit_header(self, file: str, change: Callable[[dict[str, Any]], Any]) -> Self:
        """Change the header of a safetensors file (tensor name -> dtype, shape, data_offsets); its data stays."""
        before, after = self._edited_header(file, change)
        if before == after:
            raise ValueError(f"the edit of the header of {file} changed nothing")
        return self

    def drop_key(self, file: str, key: str) -> Self:
        """Remove a key (`optimizer_state_dict.state.0.exp_avg`) from a torch or JSON file, or from `__metadata__`."""
        return self._edit_keys(file, lambda value: keys.drop(value, key))

    def rename_key(self, file: str, key: str, name: str) -> Self:
        """Rename a key: the last part of the path `key` becomes `name`."""
        return self._edit_keys(file, lambda value: keys.rename(value, key, name))

    def set_key(self, file: str, key: str, value: object) -> Self:
        """Set a key to a value; the last part of the path need not exist yet."""
        return self._edit_keys(file, lambda whole: keys.put(whole, key, value))

    def write_json(self, file: str, value: object) -> Self:
        """Add or overwrite a JSON file."""
        files.save_json(self._new(file), value)
        return self

    def write_torch(self, file: str, value: object, *, legacy: bool = False) -> Self:
        """Add or overwrite a file as `torch.save` writes it; `legacy` in the format from before torch 1.6."""
        files.save_torch(self._new(file), value, legacy=legacy, with_torch=self._writer(value))
        return self

    def write_safetensors(
        self, file: str, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None
    ) -> Self:
        """Add or overwrite a safetensors file."""
        files.save_safetensors(self._new(file), tensors, metadata, with_torch=self._writer(tensors))
        return self

    def _writer(self, value: object) -> bool | None:
        # Tensors of the kit can be added to a checkpoint that torch writes: torch itself would pickle their class.
        return False if holds_tensor(value) else self.with_torch

    def _edit_keys(self, file: str, change: Callable[[Any], Any]) -> Self:
        if file.endswith(".safetensors"):
            self._edited_header(file, lambda h: h | {"__metadata__": change(h.get("__metadata__", {}))})
        else:
            self._edited(file, change)
        return self

    def _edited(self, file: str, change: Callable[[Any], Any]) -> tuple[bytes, bytes]:
        """The file's bytes, saved by the same writer, before the change and after it."""
        path = self._existing(file)
        if path.suffix == ".json":
            return self._rewritten(file, json.loads(path.read_text()), change, self.write_json)
        if path.suffix == ".safetensors":
            tensors, metadata = files.load_safetensors(path, with_torch=self.with_torch)
            return self._rewritten(file, tensors, change, partial(self.write_safetensors, metadata=metadata))
        legacy = files.is_legacy(path)
        value = files.load_torch(path, with_torch=self.with_torch)
        return self._rewritten(file, value, change, partial(self.write_torch, legacy=legacy))

    def _edited_header(self, file: str, change: Callable[[Any], Any]) -> tuple[bytes, bytes]:
        header, data = files.split_safetensors(self._existing(file).read_bytes())

        def write(file: str, header: dict[str, Any]) -> None:
            self.replace(file, files.join_safetensors(header, data))

        return self._rewritten(file, header, change, write)

    def _rewritten(
        self, file: str, value: Any, change: Callable[[Any], Any], write: Callable[[str, Any], object]
    ) -> tuple[bytes, bytes]:
        write(file, value)
        before = (self / file).read_bytes()
        result = change(value)
        write(file, value if result is None else result)
        return before, (self / file).read_bytes()

    def _existing(self, file: str) -> Path:
        path = self.path / file
        if not os.path.lexists(path):
            there = ", ".join(sorted(os.listdir(self.path))) or "nothing"
            raise FileNotFoundError(f"there is no {file} in {self.path}, which holds {there}")
        return path

    def _new(self, file: str) -> Path:
        path = self.path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
