"""A disk that is full, a stream that is closed, a reader that goes away: the right exit code and one line about it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from ckpt_rules import UsageError
from ckpt_rules.cli.output import to_file, to_stream

COMMANDS = [
    "--help",
    "--version",
    "verify --help",
    "verify {}",
    "inspect {}",
    "rules",
    "rulesets show default",
    "schema report",
]
BUFFERED, UNBUFFERED = {"PYTHONUNBUFFERED": ""}, {"PYTHONUNBUFFERED": "1"}
FULL = b"error: standard output can't be written to: no space left on device\n"


@pytest.fixture
def good(make_checkpoint):
    return make_checkpoint().path


@pytest.mark.parametrize("buffering", [BUFFERED, UNBUFFERED], ids=["buffered", "unbuffered"])
class TestStandardOutput:
    @pytest.mark.parametrize("line", COMMANDS)
    def test_a_full_one_is_an_unknown_answer_and_says_so(self, command, good, line, buffering):
        with open("/dev/full", "wb") as full:
            ended = command(*line.format(good).split(), stdout=full, **buffering)
        assert (ended.returncode, ended.stderr) == (2, FULL)

    @pytest.mark.parametrize("line", COMMANDS)
    def test_a_reader_that_went_away_changes_no_exit_code(self, command, good, line, buffering):
        reading, writing = os.pipe()
        os.close(reading)
        ended = command(*line.format(good).split(), stdout=writing, **buffering)
        os.close(writing)
        assert (ended.returncode, ended.stderr) == (0, b"")

    def test_a_file_that_takes_only_a_part_is_no_success(self, command, good, tmp_path, buffering):
        with open(tmp_path / "report.json", "wb") as file:
            ended = command("verify", good, "--format", "json", stdout=file, limit=1000, **buffering)
        assert (ended.returncode, ended.stderr) == (2, b"error: standard output can't be written to: file too large\n")


class TestStandardError:
    @pytest.mark.parametrize(
        "line", ["verify", "verify --no-such {}", "no-such", "inspect /no/such", "rules no-such/*"]
    )
    @pytest.mark.parametrize("to", ["/dev/full", None])
    def test_a_mistake_remains_one_although_nobody_can_be_told(self, good, line, to):
        redirected = f"2>{to}" if to else "2>&-"
        shell = f"'{sys.executable}' -m ckpt_rules {line.format(good)} {redirected}"
        assert subprocess.run(shell, shell=True, check=False, stdout=subprocess.DEVNULL, timeout=60).returncode == 2

    @pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-", ">&- 2>&-"])
    def test_a_report_that_was_written_is_a_success_although_nobody_can_be_told(self, good, tmp_path, redirected):
        shell = f"'{sys.executable}' -m ckpt_rules verify {good} -f json -o {tmp_path}/report.json {redirected}"
        assert subprocess.run(shell, shell=True, check=False, timeout=60).returncode == 0
        assert json.loads((tmp_path / "report.json").read_bytes())["verdict"] == "passed"


class TestOutputFiles:
    def test_a_disk_that_fills_up_leaves_what_was_there(self, command, good, tmp_path):
        report = tmp_path / "report.json"
        report.write_text("old")
        before = sorted(os.listdir(tmp_path))
        ended = command("verify", good, "--format", "json", "--output", report, limit=1000)
        assert (ended.returncode, ended.stdout) == (2, b"")
        assert ended.stderr.decode() == f"error: {report} can't be written: file too large\n"
        assert (report.read_text(), sorted(os.listdir(tmp_path))) == ("old", before)

    def test_a_disk_that_fills_up_leaves_no_part_of_a_new_file(self, command, good, tmp_path):
        ended = command("verify", good, "--format", "json", "--output", tmp_path / "report.json", limit=1000)
        assert ended.returncode == 2
        assert [n for n in os.listdir(tmp_path) if "report.json" in n] == []

    def test_what_a_killed_run_left_is_in_nobodys_way(self, tmp_path):
        (tmp_path / f".report.txt.{os.getpid()}.tmp").write_text("half a rep")
        to_file(["new"], str(tmp_path / "report.txt"))
        assert (tmp_path / "report.txt").read_text() == "new"


class TestToStream:
    def test_a_stream_that_takes_a_few_bytes_at_a_time_gets_them_all(self):
        class Narrow(io.RawIOBase):
            taken = b""

            def writable(self):
                return True

            def write(self, data):
                self.taken += bytes(data[:3])
                return min(3, len(data))

        to_stream(["größe\n" * 5], io.TextIOWrapper(narrow := Narrow(), encoding="utf-8", write_through=True))
        assert narrow.taken == ("größe\n" * 5).encode()

    def test_a_stream_that_would_block_is_named(self):
        class Busy(io.RawIOBase):
            def writable(self):
                return True

            def write(self, data):
                return None

        stream = io.TextIOWrapper(Busy(), encoding="utf-8", write_through=True)
        with pytest.raises(UsageError, match="standard output can't be written to: resource temporarily unavailable"):
            to_stream(["x"], stream)

    def test_a_closed_stream_is_named(self):
        stream = io.StringIO()
        stream.close()
        with pytest.raises(UsageError, match="standard output can't be written to: it is closed"):
            to_stream(["x"], stream)
