"""The process that a loader runs in: its limits, its end, and what it can't reach."""

from __future__ import annotations

import os
import socket
import subprocess
from time import monotonic

import pytest

from ckpt_rules import FactUnavailable
from ckpt_rules_load import child, running
from ckpt_rules_load.running import Answer, File, LoadLimits, load_all

LIMITS = LoadLimits(memory=2048, cpu=60, seconds=60)


def files(*names, size=1):
    return [File(name, f"/nowhere/{name}", size) for name in names]


def errors(*names, limits=LIMITS):
    return [answer.error for answer in load_all("safe_open", files(*names), limits).found]


@pytest.fixture
def started(monkeypatch):
    """Every process that is started."""
    processes = []

    class Popen(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            processes.append(self)

    monkeypatch.setattr(running.subprocess, "Popen", Popen)
    return processes


def test_one_process_takes_all_files(pretend_loader, started):
    pretend_loader("if name == 'b': raise ValueError('it is bad')")
    answers = load_all("safe_open", files("a", "b", "c"), LIMITS)
    assert answers.found == (Answer("a"), Answer("b", error="ValueError: it is bad"), Answer("c"))
    assert len(started) == 1
    assert started[0].returncode is not None


def test_no_process_is_started_for_no_file(started):
    assert load_all("torch.load", [], LIMITS).found == ()
    assert started == []


@pytest.mark.parametrize(
    ("body", "death"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "it was ended by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "it was ended by SIGKILL"),
        ("os._exit(3)", "it ended with exit code 3"),
        ("print('corrupted size'); sys.stdout.flush(); os.abort()", "it was ended by SIGABRT (corrupted size)"),
    ],
)
def test_a_file_that_kills_the_loader_is_named_and_the_rest_goes_to_another(pretend_loader, started, body, death):
    pretend_loader(f"if name == 'b': {body}")
    answers = load_all("safe_open", files("a", "b", "c", "d"), LIMITS)
    assert answers.found == (Answer("a"), Answer("b", death=death), Answer("c"), Answer("d"))
    assert len(started) == 2


def test_after_five_deaths_the_rest_is_not_tried(pretend_loader, started):
    pretend_loader("os._exit(1)")
    answers = load_all("safe_open", files(*"abcdefg"), LIMITS)
    assert [a.path for a in answers.found] == list("abcde")
    assert answers.untried == ("f", "g")
    assert len(started) == 5


def test_a_loader_that_waits_is_ended_in_time(pretend_loader, started):
    pretend_loader("if name == 'b': time.sleep(600)")
    begun = monotonic()
    answers = load_all("safe_open", files("a", "b", "c"), LoadLimits(2048, 60, 2))
    assert answers.found == (Answer("a"), Answer("b", death="it did not finish within 2.0 s"), Answer("c"))
    assert monotonic() - begun < 30
    assert all(process.returncode is not None for process in started)


def test_a_loader_that_computes_is_ended_by_the_system(pretend_loader):
    pretend_loader("while True: pass")
    [answer] = load_all("safe_open", files("a"), LoadLimits(2048, 1, 60)).found
    assert answer.death == "it used more CPU time than 1 s"


def test_computing_is_counted_for_each_file_by_itself(pretend_loader):
    pretend_loader("end = time.process_time() + 0.6\nwhile time.process_time() < end: pass")
    assert errors("a", "b", "c", "d", limits=LoadLimits(2048, 1, 60)) == [None] * 4


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system does not hold processes to it")
def test_memory_beyond_the_limit_is_not_to_be_had(pretend_loader):
    pretend_loader("bytearray((1 << 20) * int(name))")
    assert errors("20", "400", "20", limits=LoadLimits(100, 60, 60)) == [None, "MemoryError", None]
    assert errors("400", limits=LoadLimits(500, 60, 60)) == [None]
    large = [File("400", "/nowhere/400", 400 << 20)]
    assert load_all("safe_open", large, LoadLimits(100, 60, 60)).found == (Answer("400"),)


def test_nothing_is_written_nor_dumped_nor_asked_for(pretend_loader, tmp_path):
    pretend_loader(
        "core = resource.getrlimit(resource.RLIMIT_CORE)[0]\n"
        "asked = (sys.stdin.read(), os.read(0, 1))\n"
        f"try: open({str(tmp_path / 'out')!r}, 'wb', 0).write(b'x')\n"
        "except OSError as error: raise ValueError(core, asked, error.strerror)"
    )
    assert errors("a") == ["ValueError: (0, ('', b''), 'File too large')"]


def test_what_a_loader_prints_is_no_answer(pretend_loader):
    pretend_loader("""print('{"ended": 0, "error": null}'); os.write(1, b"x" * 300_000); raise ValueError("true")""")
    assert errors("a") == ["ValueError: true"]


def test_only_what_a_loader_needs_of_the_environment_is_passed_on(pretend_loader, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setenv("HF_TOKEN", "secret")
    pretend_loader("raise ValueError([n for n in ('HF_TOKEN', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD') if n in os.environ])")
    assert errors("a") == ["ValueError: []"]


@pytest.mark.parametrize("package", ["torch", "safetensors"])
def test_a_package_that_is_not_installed_is_said_so(package, tmp_path, monkeypatch):
    loader = {"torch": "torch.load", "safetensors": "safe_open"}[package]
    program = tmp_path / "without.py"
    program.write_text(
        f"import runpy, sys\nsys.modules[{package!r}] = None\nrunpy.run_path({child.__file__!r}, run_name='__main__')"
    )
    monkeypatch.setattr(child, "__file__", str(program))
    with pytest.raises(FactUnavailable, match=f"^{loader} can't be run: {package} is not installed$") as absent:
        load_all(loader, files("a"), LIMITS)
    assert absent.value.blocked is False


def test_a_torch_whose_weights_only_loader_has_a_hole_is_given_nothing(tmp_path, monkeypatch):
    program = tmp_path / "old.py"
    program.write_text(
        "import runpy, sys, types\nsys.modules['torch'] = types.SimpleNamespace(__version__='2.9.1+cpu')\n"
        f"runpy.run_path({child.__file__!r}, run_name='__main__')"
    )
    monkeypatch.setattr(child, "__file__", str(program))
    with pytest.raises(
        FactUnavailable,
        match=r"torch 2\.9\.1\+cpu is installed; untrusted files are given only to torch 2\.10 or newer",
    ):
        load_all("torch.load", files("a"), LIMITS)


def test_a_loader_that_can_not_start_says_its_last_words(tmp_path, monkeypatch):
    program = tmp_path / "broken.py"
    program.write_text("raise OSError('libtorch.so: wrong ELF class')")
    monkeypatch.setattr(child, "__file__", str(program))
    with pytest.raises(FactUnavailable, match=r"ended at the start: OSError: libtorch\.so: wrong ELF class"):
        load_all("torch.load", files("a"), LIMITS)


@pytest.mark.parametrize("loader", ["torch.load", "safe_open"])
def test_what_took_the_place_of_a_file_is_not_waited_for(loader, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        given = [File(n, str(tmp_path / n), 1) for n in ("fifo", "directory", "socket", "gone")]
        found = load_all(loader, given, LIMITS).found
    assert [a.error.partition(":")[0] for a in found] == ["OSError", "OSError", "OSError", "FileNotFoundError"]
    assert "it is no longer a regular file" in found[0].error
