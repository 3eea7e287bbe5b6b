"""Listing a directory and reading ranges from it, whatever lies in there."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from ckpt_rules.checkpoint import Checkpoint
from ckpt_rules.facts.files import EntryKind, RootKind
from ckpt_rules.limits import Limits
from ckpt_rules.storage import LocalSource, LocalStorage, OneFile


def kinds(path) -> dict[str, EntryKind]:
    return {e.path: e.kind for e in LocalStorage(path).list()}


def test_a_listing_is_sorted_and_holds_sizes_in_bytes(tmp_path):
    (tmp_path / "b").write_bytes(b"12345")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "c").write_bytes(b"1")
    entries = LocalStorage(tmp_path).list().entries
    assert [(e.path, e.kind, e.size) for e in entries] == [
        ("a", EntryKind.DIRECTORY, 0),
        ("a/c", EntryKind.FILE, 1),
        ("b", EntryKind.FILE, 5),
    ]


def test_special_files_are_named_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path)
        server.bind("sock")
        assert kinds(tmp_path) == {"pipe": EntryKind.FIFO, "sock": EntryKind.SOCKET}


def test_a_fifo_in_the_place_of_a_listed_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(OSError, match="no longer a regular file"):
        LocalSource(tmp_path / "model.safetensors")


def test_links_that_lead_nowhere_or_in_circles_are_told_apart(tmp_path):
    (tmp_path / "broken").symlink_to("../blobs/0123")
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    (tmp_path / "again").symlink_to(".")
    found = {e.path: (e.kind, e.link) for e in LocalStorage(tmp_path).list()}
    assert found == {
        "broken": (EntryKind.BROKEN_LINK, "../blobs/0123"),
        "x": (EntryKind.LINK_LOOP, "y"),
        "y": (EntryKind.LINK_LOOP, "x"),
        "again": (EntryKind.LINK_LOOP, "."),
    }


def test_a_link_to_a_blob_elsewhere_is_the_file_it_leads_to(tmp_path):
    (tmp_path / "blob").write_bytes(b"1234")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "model.safetensors").symlink_to("../blob")
    (entry,) = LocalStorage(snapshot).list()
    assert (entry.kind, entry.size, entry.link) == (EntryKind.FILE, 4, "../blob")


def test_names_that_are_no_utf8_survive(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff\xfe.pt", "wb"):
        pass
    (entry,) = LocalStorage(tmp_path).list()
    assert os.fsencode(entry.path) == b"\xff\xfe.pt"
    with LocalStorage(tmp_path).open(entry.path) as source:
        assert source.size == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [("absent", RootKind.MISSING), ("file", RootKind.FILE), ("pipe", RootKind.OTHER), (".", RootKind.DIRECTORY)],
)
def test_what_the_checkpoint_path_itself_can_be(tmp_path, name, kind):
    (tmp_path / "file").write_bytes(b"1")
    os.mkfifo(tmp_path / "pipe")
    assert LocalStorage(tmp_path / name).root().kind is kind


def test_a_missing_path_names_what_may_have_been_meant(tmp_path):
    for step in (100, 200, 500):
        (tmp_path / f"step-{step}").mkdir()
    (tmp_path / "logs").mkdir()
    root = LocalStorage(tmp_path / "step-50").root()
    assert root.candidates[0] == str(tmp_path / "step-500")
    assert str(tmp_path / "logs") not in root.candidates


def test_a_path_below_a_file_is_missing(tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    assert LocalStorage(tmp_path / "file" / "step-1").root().kind is RootKind.MISSING


def test_a_nul_in_the_path_is_a_missing_path():
    assert LocalStorage("runs/\0/step").root().kind is RootKind.MISSING


def test_a_tree_beyond_the_bounds_is_cut_and_says_so(tmp_path):
    for name in "abcde":
        (tmp_path / name).write_bytes(b"")
    listing = LocalStorage(tmp_path, Limits(entries=3)).list()
    assert len(listing.entries) == 3
    assert listing.truncated == "there are more than 3 (a ruleset can raise this: `limits: {entries: …}`)"


def test_directories_beyond_the_depth_are_not_entered(tmp_path):
    (tmp_path / "a/b/c/d").mkdir(parents=True)
    listing = LocalStorage(tmp_path, Limits(depth=2)).list()
    assert [e.path for e in listing] == ["a", "a/b", "a/b/c"]
    assert listing.truncated == "directories are nested deeper than 2 (a ruleset can raise this: `limits: {depth: …}`)"


def test_a_read_past_the_end_is_short(tmp_path):
    (tmp_path / "f").write_bytes(b"0123456789")
    with LocalSource(tmp_path / "f") as source:
        assert source.read(8, 100) == b"89"
        assert source.read(50, 1) == b""


@pytest.fixture
def unprivileged(tmp_path):
    """A directory of an ordinary user, and the process in that user's place: root may read everything."""
    work = tmp_path / "work"
    work.mkdir()
    for parent in [work, *work.parents]:
        if parent == Path(tempfile.gettempdir()):
            break
        os.chmod(parent, 0o755)
    if os.geteuid() != 0:
        yield work
        return
    os.chown(work, 65534, 65534)
    os.seteuid(65534)
    try:
        yield work
    finally:
        os.seteuid(0)


def test_a_directory_without_permission_says_so_and_the_rest_is_listed(unprivileged):
    (unprivileged / "model.safetensors").write_bytes(b"1")
    (unprivileged / "secret").mkdir(mode=0o000)
    found = {(e.path, e.kind, e.error) for e in LocalStorage(unprivileged).list()}
    assert ("model.safetensors", EntryKind.FILE, None) in found
    assert ("secret", EntryKind.UNREADABLE, "permission denied") in found
    assert LocalStorage(unprivileged / "secret").root().kind is RootKind.UNREADABLE
    assert LocalStorage(unprivileged / "secret" / "step-1").root().error == "permission denied"


def test_links_out_of_the_checkpoint_are_followed_where_that_is_allowed(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").write_bytes(b"12345")
    (tmp_path / "ck").mkdir()
    (tmp_path / "ck" / "inside").write_bytes(b"1")
    for name, target in {"out": "../blobs/1", "directory": "../blobs", "in": "inside"}.items():
        (tmp_path / "ck" / name).symlink_to(target)
    allowed = LocalStorage(tmp_path / "ck").list()
    assert {e.path: e.size for e in allowed.files()} == {"directory/1": 5, "in": 1, "inside": 1, "out": 5}
    forbidden = LocalStorage(tmp_path / "ck", Limits(outside_links=False)).list()
    assert {e.path: e.kind for e in forbidden} == {
        "directory": EntryKind.UNREADABLE,
        "in": EntryKind.FILE,
        "inside": EntryKind.FILE,
        "out": EntryKind.UNREADABLE,
    }


class TestLinksToDirectories:
    """Behind a link to a directory lies what a checkpoint may hold, or all there is on the machine."""

    @pytest.mark.parametrize("target", ["/proc", "/proc/self", "/sys", "/dev", "/"])
    def test_one_to_the_system_is_not_looked_into(self, tmp_path, target):
        (tmp_path / "model.safetensors").write_bytes(b"1")
        (tmp_path / "p").symlink_to(target)
        listing = LocalStorage(tmp_path).list()
        assert [e.path for e in listing] == ["model.safetensors", "p"]
        entry = listing.get("p")
        assert (entry.kind, entry.link, listing.truncated) == (EntryKind.DIRECTORY, target, None)
        assert "which is not looked into" in entry.error

    @pytest.mark.parametrize(("files", "deep"), [(2_001, 0), (1, 5)])
    def test_one_to_more_than_a_checkpoint_holds_is_not_looked_into(self, tmp_path, files, deep):
        folder = (tmp_path / "other").joinpath(*"abcde"[:deep])
        folder.mkdir(parents=True)
        for number in range(files):
            (folder / f"{number}").touch()
        (tmp_path / "ck").mkdir()
        (tmp_path / "ck" / "z").write_bytes(b"1")
        (tmp_path / "ck" / "p").symlink_to("../other")
        listing = LocalStorage(tmp_path / "ck").list()
        assert [e.path for e in listing] == ["p", "z"]
        assert "with more than 2,000 files, or directories more than 3 deep" in listing.get("p").error
        assert listing.truncated is None

    def test_a_checkpoint_that_is_a_link_itself(self, tmp_path):
        (tmp_path / "step-5").mkdir()
        (tmp_path / "step-5" / "model.safetensors").write_bytes(b"1")
        (tmp_path / "last").symlink_to("step-5")
        assert [e.path for e in LocalStorage(tmp_path / "last").list()] == ["model.safetensors"]


def test_a_listing_that_takes_too_long_says_so(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}").touch()
    listing = LocalStorage(tmp_path, Limits(seconds=1e-9)).list()
    assert listing.truncated.startswith("listing it takes longer than 1e-09 seconds, and 0 entries were seen")


class TestUnreadableNotes:
    """A pointer that is not a short text of UTF-8 says why, and nothing waits for it or crashes."""

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"step-5\0x", "it has a NUL at byte 6"),
            ("step-5".encode("utf-16"), "it is UTF-16"),
            (b"s\xe9p", "it is not UTF-8 from byte 1 on"),
            (b"x" * 4_097, "it has 4,097 bytes, and no name has more than 4,096"),
        ],
    )
    def test_a_file_of_something_else(self, tmp_path, content, why):
        (tmp_path / "latest").write_bytes(content)
        checkpoint = Checkpoint(LocalStorage(tmp_path))
        assert checkpoint.files.small_text("latest") is None
        assert checkpoint.files.small_text_fault("latest").startswith(why)

    def test_a_fifo_a_directory_and_nothing(self, tmp_path):
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "directory").mkdir()
        checkpoint = Checkpoint(LocalStorage(tmp_path))
        said = [checkpoint.files.small_text_fault(name) for name in ("fifo", "directory", "nothing")]
        assert said == ["it is a FIFO, not a file", "it is a directory, not a file", None]

    def test_a_name_with_a_nul_leads_nowhere(self, tmp_path):
        assert LocalStorage(tmp_path).look_again("../step\0") is None


class TestBeside:
    """Pointers that lie beside a checkpoint are read; a link among them only where links may lead out."""

    def test_a_pointer_and_a_link(self, tmp_path):
        (tmp_path / "ck").mkdir()
        (tmp_path / "latest").write_text("step-5\n")
        (tmp_path / "linked").symlink_to(tmp_path / "latest")
        free, strict = (
            Checkpoint(LocalStorage(tmp_path / "ck", limits)) for limits in (Limits(), Limits(outside_links=False))
        )
        assert [c.note("../latest") for c in (free, strict)] == ["step-5", "step-5"]
        assert [c.note("../linked") for c in (free, strict)] == ["step-5", None]

    def test_beside_a_file(self, tmp_path):
        for name, text in (("last.ckpt", "x"), ("last_checkpoint", "last.ckpt")):
            (tmp_path / name).write_text(text)
        (tmp_path / "linked").symlink_to(tmp_path / "last_checkpoint")
        free, strict = (
            Checkpoint(OneFile(tmp_path / "last.ckpt", limits)) for limits in (Limits(), Limits(outside_links=False))
        )
        assert [c.note("../last_checkpoint") for c in (free, strict)] == ["last.ckpt", "last.ckpt"]
        assert [c.note("../linked") for c in (free, strict)] == ["last.ckpt", None]
        assert [e.path for e in free.listing] == ["last.ckpt"]

    @pytest.mark.parametrize("path", ["../../etc/passwd", "..//etc/passwd", "../a/../../x", "../"])
    def test_nothing_further_up(self, tmp_path, path):
        (tmp_path / "ck").mkdir()
        assert Checkpoint(LocalStorage(tmp_path / "ck")).note(path) is None

    def test_a_large_file_and_a_fifo_are_no_pointers(self, tmp_path):
        (tmp_path / "ck").mkdir()
        (tmp_path / "latest").write_bytes(b"a" * 5000)
        os.mkfifo(tmp_path / "fifo")
        checkpoint = Checkpoint(LocalStorage(tmp_path / "ck"))
        assert [checkpoint.files.small_text(f"../{name}") for name in ("latest", "fifo", "ck")] == [None, None, None]
