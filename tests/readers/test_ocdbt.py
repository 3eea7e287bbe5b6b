"""OCDBT: trees that tensorstore wrote are read as it reads them; whatever is in one, reading ends, and raises nothing."""

from __future__ import annotations

import random
import shutil
import struct
import time
from pathlib import Path

import pytest

from ckpt_rules.facts.ocdbt import ZstdFrame
from ckpt_rules.opening import checkpoint_at
from ckpt_rules.readers.ocdbt.crc32c import crc32c
from ckpt_rules.readers.ocdbt.zstd_frame import zstd_frame

FIXTURES = Path(__file__).parents[1] / "layouts" / "jax" / "fixtures"
KEYS = sorted(f"layer.{number:02}/" + "0." * (number % 5) + "0" for number in range(60))


def database(path):
    return checkpoint_at(path).files.ocdbt("manifest.ocdbt")


@pytest.fixture(params=["packed", "plain"])
def tree(request, tmp_path):
    return Path(shutil.copytree(FIXTURES / "ocdbt" / request.param, tmp_path / request.param))


def frame(magic, body):
    """A frame that is not compressed, with the right length and checksum."""
    head = magic + struct.pack("<Q", len(body) + 18) + b"\0\0"
    return head + body + struct.pack("<I", crc32c(head + body))


def test_a_known_checksum():
    assert crc32c(b"123456789") == 0xE3069283


class TestTree:
    def test_every_key_and_its_value(self, tree):
        found = database(tree)
        assert (found.complete, found.problems) == (True, ())
        assert [value.key for value in found.values] == KEYS
        for value in found.values:
            data = value.inline
            if data is None:
                data = (tree / value.path).read_bytes()[value.offset : value.offset + value.nbytes]
            assert data.decode() == value.key

    def test_the_file_of_the_root_is_gone(self, tree):
        top = next(iter(database(tree).reach))
        for path in (tree / "d").iterdir():
            path.unlink()
        found = database(tree)
        assert (found.complete, found.values, found.problems) == (False, (), ())
        assert top.startswith("d/")
        assert set(found.reach) <= {f"d/{p.name}" for p in (FIXTURES / "ocdbt" / tree.name / "d").iterdir()}

    def test_a_byte_of_a_node_that_changed(self, tree):
        path, reach = max(
            (tree / n, end) for n, end in database(tree).reach.items() if has_a_node_before(tree / n, end)
        )
        data = bytearray(path.read_bytes())
        data[reach - 10] ^= 1
        path.write_bytes(data)
        found = database(tree)
        ((where, problem),) = found.problems
        assert (where, found.complete) == (path.relative_to(tree).as_posix(), False)
        assert problem.code == "ocdbt-crc"
        assert "CRC-32C" in problem.message
        assert problem.offset is not None

    def test_a_manifest_of_zeros(self, tree):
        (tree / "manifest.ocdbt").write_bytes(bytes(80))
        ((where, problem),) = database(tree).problems
        assert (where, problem.message) == ("manifest.ocdbt", "there is no manifest of OCDBT, but zero bytes")


def has_a_node_before(path, end):
    data = path.read_bytes()
    at = data.rfind(b"\x0c\xdb\x20\xde", 0, end)
    return at >= 0 and at + int.from_bytes(data[at + 4 : at + 12], "little") == end


class TestHostile:
    def test_a_node_that_is_its_own_child(self, tmp_path):
        files = b"\x01\x01\x00a"
        place = b"\x00" + b"\x00" + bytes([0])
        body = lambda length: b"\x09" + files + b"\x01" + b"\x00\x00" + place[:2] + bytes([length]) + b"\x00\x00\x00"  # noqa: E731
        node = frame(b"\x0c\xdb\x20\xde", body(len(body(0)) + 18))
        (tmp_path / "a").write_bytes(node)
        manifest = bytes(16) + b"\x00\x64\x64\x04\x00" + files + b"\x01\x01\x09" + b"\x00\x00" + bytes([len(node)])
        (tmp_path / "manifest.ocdbt").write_bytes(frame(b"\x0c\xdb\x3a\x2a", manifest + b"\0\0\0" + bytes(8)))
        ((where, problem),) = database(tmp_path).problems
        assert where == "a"
        assert "the node has height 9, where 8 was expected" in problem.message

    def test_a_body_that_unpacks_into_a_quarter_of_a_gigabyte(self, tmp_path):
        import zstandard

        packer = zstandard.ZstdCompressor().compressobj()
        packed = b"".join(packer.compress(bytes(1 << 24)) for _ in range(16)) + packer.flush()
        head = b"\x0c\xdb\x3a\x2a" + struct.pack("<Q", len(packed) + 18) + b"\0\1"
        (tmp_path / "manifest.ocdbt").write_bytes(head + packed + struct.pack("<I", crc32c(head + packed)))
        ((_, problem),) = database(tmp_path).problems
        assert (problem.code, problem.fatal) == ("limit", False)

    def test_paths_that_unfold_into_gigabytes(self, tmp_path):
        varint = lambda n: bytes([n & 0x7F | 0x80, n >> 7 & 0x7F | 0x80, n >> 14])  # noqa: E731
        count, long = 50_000, varint(60_000)
        files = varint(count) + long * (count - 1) + long + b"\0" * (count - 1) + b"\0" * count + b"a" * 60_000
        (tmp_path / "manifest.ocdbt").write_bytes(
            frame(b"\x0c\xdb\x3a\x2a", bytes(16) + b"\x00\x64\x64\x04\x00" + files)
        )
        ((_, problem),) = database(tmp_path).problems
        assert problem.code == "limit"
        assert "names of 3,000,000,000 bytes in one table" in problem.message

    def test_mutants(self, tree):
        """Changed bytes, each frame with a checksum that is right again, so that what lies behind it is read."""
        rnd = random.Random(5)
        files = [tree / "manifest.ocdbt", *(tree / "d").iterdir()]
        whole = {path: path.read_bytes() for path in files}
        began = time.monotonic()
        for _ in range(60):
            path = rnd.choice(files)
            path.write_bytes(sealed(mutated(whole[path], rnd)))
            found = database(tree)
            assert len(found.values) <= 200
            path.write_bytes(whole[path])
        assert time.monotonic() - began < 20


def mutated(data, rnd):
    changed = bytearray(data)
    for _ in range(rnd.randint(1, 4)):
        changed[rnd.randrange(len(changed))] = rnd.choice([0, 1, 0x7F, 0x80, 0xFF, rnd.randrange(256)])
    if rnd.random() < 0.2:
        del changed[rnd.randrange(len(changed)) :]
    return bytes(changed)


def sealed(data):
    """Each frame in the bytes with the checksum that it should have."""
    out, at = bytearray(data), 0
    while (at := data.find(b"\x0c\xdb", at)) >= 0:
        end = at + int.from_bytes(data[at + 4 : at + 12], "little")
        if at + 16 < end <= len(data):
            out[end - 4 : end] = struct.pack("<I", crc32c(bytes(out[at : end - 4])))
        at += 2
    return bytes(out)


class TestZstdFrames:
    @pytest.fixture
    def packed(self):
        import zstandard

        return zstandard.ZstdCompressor(write_checksum=True).compress(
            random.Random(1).randbytes(300_000) + bytes(300_000)
        )

    def test_a_whole_one_is_walked_to_its_end(self, packed):
        found = zstd_frame(packed)
        assert (found.content, found.end, found.fault) == (600_000, len(packed), None)
        assert found.blocks > 3

    @pytest.mark.parametrize("keep", [1, 3, 100, 131_000, 200_000, 299_999])
    def test_one_that_was_cut(self, packed, keep):
        assert "ends" in zstd_frame(packed[:-keep]).fault

    @pytest.mark.parametrize("keep", [0, 3, 5, 8])
    def test_one_that_ends_within_its_header(self, packed, keep):
        assert zstd_frame(packed[:keep]).fault

    def test_zeros(self):
        assert zstd_frame(bytes(100)).fault == "does not begin as zstd does, but with zero bytes"

    def test_the_walk_may_be_ended(self, packed):
        assert zstd_frame(packed, 2) == ZstdFrame(600_000, blocks=2)

    def test_what_unpacks_agrees(self, packed):
        """A frame that the library unpacks has no fault here, and one with a fault is one that it refuses."""
        import zstandard

        rnd = random.Random(3)
        small = zstandard.ZstdCompressor().compress(rnd.randbytes(300) + bytes(300))
        for _ in range(500):
            data = mutated(small, rnd)
            try:
                zstandard.ZstdDecompressor().decompress(data, max_output_size=1000)
            except zstandard.ZstdError:
                continue
            assert zstd_frame(data).fault is None
