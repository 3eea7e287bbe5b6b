"""Damaged torch files: each fault under its name, and never fewer faults than torch itself finds."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import warnings
import zipfile

import pytest
import torch

from ckpt_rules.limits import Limits
from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.torch.file import read_torch_file
from tests.readers.sources import Bytes, codes, fatal, rewrite, saved


def read(data: bytes, path: str = "state.pth"):
    return read_torch_file(Bytes(data), path)


def only(file, code: str):
    """The one fatal problem."""
    found = [p for p in file.problems if p.fatal]
    assert [p.code for p in found] == [code], found
    return found[0]


def loads(data: bytes) -> str:
    """What torch says against the file, '' where it loads."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols other than 2
            torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises whatever its parsers raise
        return str(error) or repr(error)
    return ""


class TestZip:
    def test_cut_short(self):
        data = saved({"w": torch.zeros(2_000), "b": torch.zeros(500)})
        file = read(data[:5_000])
        problem = only(file, "cut-short")
        assert "the zip directory that belongs at the end of the file is missing" in problem.message
        assert "the file was cut short, at 5,000 bytes" in problem.message
        assert (file.container, file.readable, file.value) == ("zip", False, None)

    def test_cut_short_tells_what_its_pickle_needs_and_asks_for(self):
        data = saved({"w": torch.zeros(2_000), "b": torch.zeros(500)})
        file = read(data[:5_000])
        assert [p.message for p in file.problems if not p.fatal] == [
            "its pickle names 2 storages of 10,000 bytes in all; the file has 5,000"
        ]
        assert {g.dotted for g in file.globals} >= {"torch._utils._rebuild_tensor_v2", "torch.FloatStorage"}

    def test_cut_within_its_first_bytes(self):
        for keep in range(1, 60):
            assert fatal(read(saved({"w": 1})[:keep])), keep

    def test_end_record_overwritten(self):
        data = saved({"w": torch.zeros(10)}).replace(b"PK\x05\x06", b"XXXX")
        assert "the record that ends the zip directory" in only(read(data), "no-directory").message
        assert loads(data)

    def test_storage_gone(self):
        data = rewrite(saved({"w": torch.zeros(10)}), lambda n, c: None if n.endswith("data/0") else c)
        assert only(read(data), "storage-missing").message == "the storage '0' of 40 bytes is not in the file"
        assert loads(data)

    def test_storage_of_another_size(self):
        data = rewrite(saved({"w": torch.zeros(10)}), lambda n, c: c[:-8] if n.endswith("data/0") else c)
        problem = only(read(data), "storage-size")
        assert problem.message == "the storage '0' holds 32 bytes where its tensors need 40"

    def test_storage_that_no_tensor_uses(self):
        data = saved({"w": torch.zeros(10)})
        file = read(rewrite(data, lambda n, c: c.replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x001")))
        assert codes(file) == ["storage-missing", "storage-unused"]
        assert "1 storages with 40 bytes belong to no tensor" in file.problems[1].message

    def test_tensor_that_reaches_past_its_storage(self):
        data = saved({"w": torch.zeros(4, 5)})
        longer = data.replace(b"K\x04K\x05\x86", b"K\x04K\x06\x86")
        problem = only(read(longer), "storage-bounds")
        assert problem.message == ("a tensor of shape [4, 6] needs the first 84 bytes of the storage '0', which has 80")
        assert loads(longer)

    def test_no_pickle(self):
        data = rewrite(saved({"w": 1}), lambda n, c: None if n.endswith("data.pkl") else c)
        assert "has no 'archive/data.pkl'" in only(read(data), "no-pickle").message
        assert loads(data)

    def test_no_entries(self):
        with zipfile.ZipFile(stream := io.BytesIO(), "w"):
            pass
        assert only(read(stream.getvalue()), "no-pickle").message == "the zip archive holds nothing"

    def test_upper_case_name_of_the_pickle_is_taken_as_torch_takes_it(self):
        data = rename(saved({"w": torch.ones(2)}), "archive/data.pkl", "archive/DATA.PKL")
        assert loads(data) == ""
        assert (read(data).readable, codes(read(data))) == (True, [])

    def test_entry_outside_of_the_folder(self):
        data = rename(saved({"w": torch.ones(2)}), "archive/byteorder", "another/byteorder")
        assert "lies outside of the folder 'archive'" in only(read(data), "directory").message
        assert loads(data)

    def test_entry_twice(self):
        data = rename(saved([torch.ones(2), torch.ones(2)]), "archive/data/1", "archive/DATA/0")
        file = read(data)
        assert [(p.code, p.fatal) for p in file.problems] == [("ambiguous", True), ("storage-missing", True)]
        assert (
            file.problems[0].message
            == "the zip directory lists 'archive/DATA/0' twice, and readers differ in which they take"
        )

    def test_record_that_makes_no_sense(self):
        for name, content in {"version": b"99", "byteorder": b"middle", ".storage_alignment": b"x"}.items():
            data = rewrite(saved({"w": torch.ones(2)}), lambda n, c, e=name, new=content: new if n.endswith(e) else c)
            assert f"says {content!r}" in only(read(data), "record").message
            assert loads(data)

    def test_no_version(self):
        data = rewrite(saved({"w": torch.ones(2)}), lambda n, c: None if n.endswith("/version") else c)
        assert "has no 'archive/version'" in only(read(data), "no-pickle").message
        assert loads(data)

    def test_header_of_an_entry_overwritten(self):
        data = bytearray(saved({"w": torch.zeros(10)}))
        at = data.rindex(b"PK\x03\x04", 0, data.index(b"data/0"))
        data[at : at + 4] = b"XXXX"
        problem = only(read(bytes(data)), "entry-header")
        assert (problem.where, problem.offset) == ("archive/data/0", at)
        assert loads(bytes(data))

    def test_header_of_an_entry_with_another_name_is_not_torch_s_business(self):
        data = saved({"w": torch.zeros(10)}).replace(b"archive/data/0", b"archive/data/9", 1)
        file = read(data)
        assert [(p.code, p.fatal) for p in file.problems] == [("ambiguous", False)]
        assert loads(data) == ""

    def test_entry_hidden_inside_another(self):
        data = bytearray(saved({"w": torch.zeros(100)}))
        central = data.rindex(b"PK\x01\x02", 0, data.rindex(b"archive/version"))
        inside = data.index(b"PK\x03\x04", 1)
        struct.pack_into("<L", data, central + 42, inside)
        assert "entry-header" in codes(read(bytes(data)))

    def test_directory_through_its_64_bit_record(self):
        data = saved({"w": torch.zeros(10)})
        assert b"PK\x06\x06" in data  # torch writes both records
        assert read(data).problems == ()
        end = data.rindex(b"PK\x05\x06")
        narrow = data[: data.rindex(b"PK\x06\x06")] + data[end:]
        assert read(narrow).problems == ()
        wide = data[:end] + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
        assert loads(narrow) == loads(wide) == ""
        assert read(wide).problems == ()

    def test_entry_with_64_bit_sizes(self):
        with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
            for name, content in {"data.pkl": pickle.dumps(7, 2), "version": b"3"}.items():
                with archive.open(f"archive/{name}", "w", force_zip64=True) as entry:
                    entry.write(content)
        assert (read(stream.getvalue()).value, loads(stream.getvalue())) == (7, "")

    def test_bytes_after_the_archive(self):
        data = saved({"w": torch.ones(2)})
        for tail in (b"x", b"\0" * 1_000, b"PK\x05\x06"):
            assert loads(data + tail) == ""
            assert read(data + tail).readable

    @pytest.mark.parametrize(
        ("elements", "behind", "found"), [(1, 4_074, True), (1, 4_075, False), (5_000, 9_000, True)]
    )
    def test_end_record_where_the_search_of_torch_begins_before_the_file(self, elements, behind, found):
        data = saved({"w": torch.zeros(elements)})
        archive = data + bytes(behind)
        assert (loads(archive) == "") is found
        if found:
            assert not fatal(read(archive))
        else:
            problem = only(read(archive), "directory")
            assert problem.offset == data.rindex(b"PK\x05\x06")
            assert f"lies {behind + 22:,} bytes before the end" in problem.message

    def test_bytes_before_the_first_entry(self):
        archive = io.BytesIO(b"PK\5\6")
        archive.seek(4)
        with zipfile.ZipFile(io.BytesIO(saved({"n": 1}))) as old, zipfile.ZipFile(archive, "a") as new:
            for entry in old.infolist():
                new.writestr(entry.filename, old.read(entry))
        data = archive.getvalue()
        assert loads(data)
        file = read(data)
        assert only(file, "not-torch").offset == 0
        assert file.value == {"n": 1}

    def test_entry_compressed_to_nothing(self):
        data = bytearray(saved({"n": 1}))
        at = data.rindex(b"PK\x01\x02")
        data[at + 10 : at + 12] = b"\x08\x00"
        data[at + 20 : at + 24] = bytes(4)
        assert loads(bytes(data))
        assert "bytes, compressed to none" in next(
            p.message for p in read(bytes(data)).problems if p.code == "entry-header"
        )

    def test_deflated_archive(self):
        source = zipfile.ZipFile(io.BytesIO(saved({"step": torch.tensor(3.0), "w": torch.zeros(5)})))
        with zipfile.ZipFile(stream := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
            for name in source.namelist():
                archive.writestr(name, source.read(name))
        file = read(stream.getvalue())
        assert loads(stream.getvalue()) == ""
        assert [(p.code, p.fatal) for p in file.problems] == [("compressed", False)]
        assert (file.value["w"].shape, file.value["w"].offset, file.value["step"].value) == ((5,), None, None)

    def test_bomb(self):
        with zipfile.ZipFile(stream := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(70 << 20))
            archive.writestr("archive/version", "3\n")
        assert (
            "has 73,400,320 bytes, more than the 67,108,864 that are read"
            in only(read(stream.getvalue()), "limit").message
        )

    def test_bomb_that_lies_about_its_size(self):
        with zipfile.ZipFile(stream := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(10 << 20))
            archive.writestr("archive/version", "3\n")
        data = bytearray(stream.getvalue())
        struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 24, 100)
        assert "has 101 bytes where 100 are announced" in only(read(bytes(data)), "entry-header").message

    def test_too_many_entries(self):
        file = read_torch_file(Bytes(saved({"w": torch.ones(2)})), "state.pth", Budget(Limits(entries=3)))
        assert "at most 3 are read (a ruleset can raise this: `limits: {entries: …}`)" in only(file, "limit").message

    def test_wrong_checksum_of_the_pickle(self):
        data = saved({"learning_rate": 0.1})
        file = read(data.replace(b"learning_rate", b"learninG_rate"))
        assert file.value == {"learninG_rate": 0.1}
        assert [(p.code, p.fatal) for p in file.problems] == [("crc", False)]

    def test_no_checksum_at_all_is_a_choice_of_the_writer(self):
        torch.serialization.set_crc32_options(False)
        try:
            data = saved({"w": torch.ones(2)})
        finally:
            torch.serialization.set_crc32_options(True)
        assert read(data).problems == ()

    def test_bytes_after_the_pickle(self):
        data = rewrite(saved({"a": 1}), lambda n, c: c + b"more" if n.endswith("data.pkl") else c)
        file = read(data)
        assert [(p.code, p.fatal) for p in file.problems] == [("trailing-data", False)]
        assert (file.value, loads(data)) == ({"a": 1}, "")

    def test_storages_without_end_yield_a_hundred_problems(self):
        data = saved([torch.zeros(1) for _ in range(300)])
        file = read(rewrite(data, lambda n, c: None if "/data/" in n else c))
        assert len(file.problems) == 101
        assert file.problems[-1].message == "200 further problems like these"

    def test_shrinking_while_it_is_read(self):
        data = saved({"w": torch.zeros(1_000), "step": torch.tensor(3.0)})

        class Shrinking(Bytes):
            def read(self, offset, length):
                found = super().read(offset, length)
                if b"PK\x05\x06" in found:
                    self.data = self.data[: len(data) // 3]
                return found

        assert fatal(read_torch_file(Shrinking(data), "x.pt"))


def rename(data: bytes, old: str, new: str) -> bytes:
    """The archive with an entry renamed, in its own header and in the directory; both names are of one length."""
    assert len(old) == len(new)
    return data.replace(old.encode(), new.encode())


class TestLegacy:
    def test_cut_short_in_a_storage(self):
        data = saved({"w": torch.zeros(100)}, legacy=True)
        file = read(data[:-300])
        problem = only(file, "cut-short")
        assert "of 400 bytes starts at byte" in problem.message
        assert f"the file ends at {len(data) - 300:,}" in problem.message
        assert file.value["w"].shape == (100,)

    def test_cut_short_in_its_pickles(self):
        data = saved({"w": torch.zeros(100)}, legacy=True)
        file = read(data[:300])
        assert "the file was cut short, at 300 bytes" in only(file, "cut-short").message
        assert (file.container, file.readable) == ("legacy", False)
        assert file.globals

    def test_storage_of_another_size(self):
        data = bytearray(saved({"w": torch.zeros(100)}, legacy=True))
        struct.pack_into("<q", data, len(data) - 408, 99)
        assert "has 99 elements where its tensors need 100" in only(read(bytes(data)), "storage-size").message
        assert loads(bytes(data))

    def test_bytes_after_the_last_storage(self):
        data = saved({"w": torch.zeros(100)}, legacy=True) + b"more"
        assert [(p.code, p.fatal) for p in read(data).problems] == [("trailing-data", False)]
        assert loads(data) == ""

    def test_another_protocol(self):
        data = saved({"w": 1}, legacy=True).replace(b"M\xe9\x03.", b"M\xea\x03.")
        assert "follows protocol 1002; torch knows 1,001 only" in only(read(data), "not-torch").message
        assert "1002" in loads(data)


class TestNeither:
    def test_bare_pickle_and_what_follows_it(self):
        file = read(pickle.dumps({"a": [1]}, protocol=4) + b"more")
        assert (file.container, file.value, file.protocol) == ("pickle", {"a": [1]}, 4)
        assert [(p.code, p.fatal) for p in file.problems] == [("not-torch", True), ("trailing-data", False)]
        assert "torch.load refuses it" in file.problems[0].message

    def test_bare_pickle_that_says_so(self):
        for protocol in range(6):
            assert read(pickle.dumps({"a": [1]}, protocol), "rng.pkl").problems == ()

    def test_several_bare_pickles_are_all_searched(self):
        data = pickle.dumps([1]) + pickle.dumps(os.system)
        file = read(data, "x.pkl")
        assert file.value == [1]
        assert [(g.dotted, g.stream) for g in file.globals] == [("posix.system", "object 2")]

    def test_text(self):
        assert only(read(b"hello"), "not-torch").offset == 0

    def test_zeros(self):
        assert only(read(bytes(4_096)), "not-torch").offset == 0

    def test_tar_archive(self):
        assert "tar archive" in only(read(bytes(257) + b"ustar" + bytes(250)), "not-torch").message


class Evil:
    def __init__(self, marker) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_nothing_is_executed_and_what_would_be_is_named(tmp_path, legacy):
    marker = tmp_path / "ran"
    data = saved({"a": Evil(marker), "w": torch.ones(2)}, legacy=legacy)
    file = read(data)
    assert not marker.exists()
    assert (file.value["a"].type, file.value["a"].args) == ("posix.system", (f"touch {marker}",))
    (found,) = [g for g in file.globals if g.dotted == "posix.system"]
    assert data[: data.index(b"cposix\nsystem")].endswith(
        data[data.rindex(b"\x80\x02", 0, data.index(b"cposix")) :][: found.offset]
    )
    # Cut off behind the call it asks for the same.
    cut = data[: data.index(b"cposix\nsystem") + 60]
    assert "posix.system" in {g.dotted for g in read(cut).globals}


SMALL = {
    "tensors": {"w": torch.ones(5, 3), "step": torch.tensor(3.0), "n": [1, "a"], "view": torch.arange(6)[2:4]},
    "values": {"t": (1, 2.5, None, True, 2**70, -5), "b": b"bytes", "h": torch.ones(2, dtype=torch.bfloat16), "s": {1}},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", SMALL)
def test_a_file_cut_at_any_length_is_a_problem(name, legacy):
    data = saved(SMALL[name], legacy=legacy)
    assert read(data).problems == ()
    for keep in range(1, len(data)):
        file = read(data[:keep])
        assert fatal(file), keep
        assert all(p.offset is None or 0 <= p.offset <= len(data) for p in file.problems)


JUSTIFIED = (
    "Unsupported global",  # a fact of its own: `TorchFile.globals`
    "Unsupported operand",  # opcodes that pickle.load takes
    "unrecognized function",
    "Can only build Tensor",
    "restore data location",  # an unknown device, which map_location puts right
    "start of device string",
    "is not a type object",  # REDUCE turned into NEWOBJ
)


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", SMALL)
def test_what_torch_refuses_after_any_changed_byte_is_a_problem(name, legacy):
    data = saved(SMALL[name], legacy=legacy)
    rng = random.Random(f"{name} {legacy}")
    missed = []
    for at in range(len(data)):
        for new in {0, data[at] ^ (1 << rng.randrange(8)), rng.randrange(256)} - {data[at]}:
            changed = data[:at] + bytes([new]) + data[at + 1 :]
            if fatal(read(changed)):
                continue
            refusal = loads(changed)
            if refusal and not any(words in refusal for words in JUSTIFIED):
                missed.append((at, new, refusal))
    assert missed == []


def test_zeroed_blocks_are_a_problem_wherever_torch_minds():
    data = saved(SMALL["tensors"])
    for start in range(0, len(data), 64):
        changed = data[:start] + bytes(min(64, len(data) - start)) + data[start + 64 :]
        if loads(changed):
            assert fatal(read(changed)), start
