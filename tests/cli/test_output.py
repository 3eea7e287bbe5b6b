"""Where text goes: streams that end early or can't take it, and files that appear whole or not at all."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys

import pytest

from ckpt_rules import UsageError
from ckpt_rules.cli.output import emit, to_file, to_stream


def command(*arguments, **environment):
    env = {**os.environ, **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "ckpt_rules", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, bufsize=0,
    )  # fmt: skip


class TestFiles:
    def test_a_new_file_has_the_rights_of_any_other(self, tmp_path):
        to_file(["größe\n", "\udcff"], str(tmp_path / "report.txt"))
        assert (tmp_path / "report.txt").read_bytes() == "größe\n\\udcff".encode()
        (tmp_path / "other").touch()
        assert (tmp_path / "report.txt").stat().st_mode == (tmp_path / "other").stat().st_mode
        assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "report.txt"]

    def test_an_old_file_keeps_its_rights(self, tmp_path):
        old = tmp_path / "report.txt"
        old.write_text("a longer text than the new one")
        old.chmod(0o640)
        to_file(["new"], str(old))
        assert (old.read_text(), stat.S_IMODE(old.stat().st_mode)) == ("new", 0o640)

    def test_a_link_is_followed(self, tmp_path):
        (tmp_path / "link").symlink_to("real.txt")
        to_file(["new"], str(tmp_path / "link"))
        assert ((tmp_path / "real.txt").read_text(), (tmp_path / "link").is_symlink()) == ("new", True)

    def test_a_device_is_written_to_and_stays_one(self):
        to_file(["new"], os.devnull)
        assert stat.S_ISCHR(os.stat(os.devnull).st_mode)

    def test_a_full_disk_leaves_what_was_there(self, tmp_path, monkeypatch):
        old = tmp_path / "report.txt"
        old.write_text("old")

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(UsageError, match=r"report\.txt can't be written: no space left on device"):
            to_file(["new"], str(old))
        assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("report.txt", "old")]

    def test_a_run_that_fails_midway_leaves_what_was_there(self, tmp_path):
        def pieces():
            yield "new"
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            to_file(pieces(), str(tmp_path / "report.txt"))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("absent/report.txt", "no such file or directory"),
            (".", "is a directory"),
            ("file/report.txt", "not a directory"),
            ("x\0y", "embedded null byte"),
        ],
    )
    def test_a_place_where_no_file_can_be(self, tmp_path, name, why):
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match=f"can't be written: {why}"):
            to_file(["new"], str(tmp_path / name))

    def test_nothing_of_it_is_to_be_seen_till_all_is_there(self, tmp_path):
        def pieces():
            for _ in range(3):
                yield "x" * (4 << 20)
                assert list(tmp_path.iterdir()) == []

        to_file(pieces(), str(tmp_path / "report.txt"))
        assert (tmp_path / "report.txt").stat().st_size == 12 << 20

    def test_a_full_device(self):
        with pytest.raises(UsageError, match="/dev/full can't be written: no space left on device"):
            emit(["new"], "/dev/full")


class TestStreams:
    @pytest.mark.parametrize(
        ("encoding", "written"),
        [("utf-8", "é…\\udcff".encode()), ("latin-1", b"\xe9\\u2026\\udcff"), ("ascii", b"\\xe9\\u2026\\udcff")],
    )
    def test_what_the_encoding_lacks_is_escaped(self, encoding, written):
        stream = io.TextIOWrapper(raw := io.BytesIO(), encoding=encoding)
        to_stream(["é…\udcff"], stream)
        assert raw.getvalue() == written

    def test_none_at_all(self):
        to_stream(["x"], None)

    def test_pieces_are_computed_although_nobody_reads_them(self):
        class Gone(io.StringIO):
            def write(self, text):
                raise BrokenPipeError

        seen = []
        to_stream((seen.append(n) or "x" for n in range(3)), Gone())
        assert seen == [0, 1, 2]


class TestProcesses:
    @pytest.fixture
    def bad(self, make_checkpoint):
        return make_checkpoint().empty("model.safetensors").path

    def test_a_reader_that_goes_away_changes_no_exit_code(self, bad):
        with command("verify", bad, bad, "-v") as process:
            process.stdout.close()
            assert (process.wait(60), process.stderr.read()) == (1, b"")

    def test_a_full_standard_output(self, bad):
        with open("/dev/full", "wb") as full:
            ended = subprocess.run(
                [sys.executable, "-m", "ckpt_rules", "verify", bad], stdout=full, stderr=subprocess.PIPE, check=False
            )
        assert (ended.returncode, ended.stderr) == (
            2,
            b"error: standard output can't be written to: no space left on device\n",
        )

    def test_a_closed_standard_output(self, bad):
        ended = subprocess.run(
            f"'{sys.executable}' -m ckpt_rules verify '{bad}' >&-", shell=True, stderr=subprocess.PIPE, check=False
        )
        assert (ended.returncode, ended.stderr) == (1, b"")

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
    @pytest.mark.parametrize("form", ["text", "json"])
    def test_any_encoding_of_the_streams(self, bad, encoding, form):
        with open(os.fsencode(bad) + "/größe-\u2713\udcff.pt".encode("utf-8", "surrogateescape"), "wb"):
            pass
        process = command("verify", bad, "--format", form, PYTHONIOENCODING=encoding)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (1, b"")
        out.decode(encoding)

    @pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
    def test_any_locale(self, bad, locale):
        process = command("verify", bad, LC_ALL=locale, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (1, b"")
        assert b"files/empty" in out
