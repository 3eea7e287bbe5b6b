"""Checkpoints that trainers' own libraries wrote: each made once for a whole run of the tests, whoever asks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from ckpt_rules import api
from tests.layouts.killing import Survey

SECONDS = 240
OURS = ("quick", "default", "deep", "inference", "publish")
RESOLVED: dict[tuple[object, ...], api.ResolvedRuleset] = {}
SERVED = frozenset(
    {"trainer/train.py", "trainer/families.py", "lightning/train.py", "accelerate/train.py", "dcp/train.py"}
)
BY_ITS_OWN_LAUNCHER = ("lightning/train.py", "ddp")  # Lightning starts its script again


@pytest.fixture(autouse=True)
def resolved_once(monkeypatch):
    """A ruleset of ours is resolved once for all tests here, of which many verify hundreds of damaged copies."""
    load = api.load_ruleset

    def known(ruleset: str = "default", **given: object):
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        key = (ruleset, *given.items())
        if ruleset not in OURS:
            return load(ruleset, **given)
        if key not in RESOLVED:
            RESOLVED[key] = load(ruleset, **given)
        return RESOLVED[key]

    monkeypatch.setattr(api, "load_ruleset", known)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """`made("trainer/train.py", "ddp")`: the directory into which that script of this folder wrote.

    The script is run with the directory and the further arguments, in a process of its own, offline and on two threads.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    servers: dict[str, Server] = {}

    def run(script: str, path: Path, out: Path, *args: str) -> None:
        if script not in SERVED or (script, *args) == BY_ITS_OWN_LAUNCHER:
            run_script(path, out, *args)
            return
        if script not in servers:
            servers[script] = Server(path)
        servers[script].run(out, *args)

    def make(script: str, *args: str) -> Path:
        path = Path(__file__).parent / script
        name = hashlib.sha256("\0".join([script, *args]).encode()).hexdigest()[:12]
        out = shared / f"made-{name}"
        with FileLock(shared / f"made-{name}.lock"):
            if not (out / ".made").exists():
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                run(script, path, out, *args)
                (out / ".made").touch()
        return out

    yield make
    for server in servers.values():
        server.close()


def environment(script: Path) -> dict[str, str]:
    """For a script: offline, on one thread, and able to import what lies beside it."""
    offline = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return {**os.environ, **offline, "PYTHONPATH": os.pathsep.join([str(script.parent), str(Path(__file__).parent)])}


class Server:
    """A script that has imported what it needs, and runs again and again; the imports of these take longer than the runs."""

    def __init__(self, script: Path) -> None:
        self.script = script
        argv = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("serving.py")), str(script)]
        self.process = subprocess.Popen(
            argv, env=environment(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, out: Path, *args: str) -> None:
        said = out / ".said"
        self.process.stdin.write(json.dumps([str(said), str(out), *args]) + "\n")
        self.process.stdin.flush()
        code = self.process.stdout.readline().strip()
        told = said.read_text(errors="replace") if said.exists() else ""
        assert code == "0", f"{self.script.name} {' '.join(args)} ended with {code or 'its server'}:\n{told[-6000:]}"
        said.unlink(missing_ok=True)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=SECONDS)
        self.process.stdout.close()


def run_script(script: Path, out: Path, *args: str) -> None:
    """Run one script with a directory to write into; all that it said is shown where it fails."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(out), *args],
        env=environment(script),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{script.name} {' '.join(args)} ended with {done.returncode}:\n{done.stdout[-6000:]}"


@pytest.fixture
def copied(made, tmp_path):
    """`copied("trainer/train.py", "plain", "checkpoint-4")`: a copy that a test may damage, with the same name."""

    def copy(script: str, *args: str) -> Path:
        *rest, inside = args
        source = made(script, *rest) / inside
        target = tmp_path / source.name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        else:
            shutil.copy2(source, target)
        return target

    return copy


@pytest.fixture
def survived(record_property):
    """`survived(survey, HARMLESS)`: those damages and no others may live, each for its reason; shown when the tests are done."""

    def check(survey: Survey, reasons: dict[str, str]) -> None:
        assert set(survey.survivors) == set(reasons), survey
        total = len(survey.killed) + len(survey.survivors)
        record_property("kill rate", {"layout": survey.layout, "total": total, "survivors": reasons})

    return check
