"""Proves that what is released works: wheel and sdist, installed where neither the checkout nor torch can be seen.

Builds both, looks into the wheel, installs it into a fresh environment, verifies real checkpoints through the command line
from another directory, then adds the third-party example and runs that through the command line and its own tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
EXAMPLE = "ckpt-rules-acme"
PACKAGES = (
    "ckpt_rules",
    "ckpt_rules_accelerate",
    "ckpt_rules_deepspeed",
    "ckpt_rules_dcp",
    "ckpt_rules_files",
    "ckpt_rules_integrity",
    "ckpt_rules_jax",
    "ckpt_rules_lightning",
    "ckpt_rules_load",
    "ckpt_rules_megatron",
    "ckpt_rules_numerics",
    "ckpt_rules_one_file",
    "ckpt_rules_peft",
    "ckpt_rules_previous",
    "ckpt_rules_publish",
    "ckpt_rules_ranks",
    "ckpt_rules_safety",
    "ckpt_rules_torch",
    "ckpt_rules_torchtune",
    "ckpt_rules_training",
    "ckpt_rules_transformers",
    "ckpt_rules_weights",
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ckpt-rules-wheel-") as name:
        work = Path(name)
        wheel, sdist = build(work / "dist")
        check_wheel(wheel)
        check_sdist(sdist, wheel, work / "from-sdist")
        clean, damaged = checkpoints(work / "checkpoints")
        room = Room(work / "environment", work / "elsewhere")
        check_alone(room, wheel, clean, damaged)
        check_with_example(room, wheel, clean, work)
    print("wheel test passed: the release works without the checkout and without torch")


def build(out: Path) -> tuple[Path, Path]:
    """The wheel and the sdist, both straight from the checkout."""
    step("building wheel and sdist")
    argv = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--sdist", "--outdir", str(out), str(REPO)]
    run(argv, cwd=REPO)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def check_wheel(wheel: Path) -> None:
    """All that users need is in it and nothing else."""
    step(f"looking into {wheel.name}")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = archive.read(next(n for n in names if n.endswith(".dist-info/entry_points.txt"))).decode()
    expect({n.split("/")[0] for n in names if ".dist-info/" not in n} == set(PACKAGES), f"top-level names in {names}")
    for package in PACKAGES:
        expect(f"{package}/py.typed" in names, f"{package}/py.typed is not in the wheel")
    for ruleset in (REPO / "rulesets").glob("*.yaml"):
        expect(f"ckpt_rules/_rulesets/{ruleset.name}" in names, f"the ruleset {ruleset.name} is not in the wheel")
    source = {f.relative_to(REPO).as_posix() for f in (REPO / "ckpt_rules").rglob("*.py")}
    expect(source <= set(names), f"not in the wheel: {sorted(source - set(names))}")
    expect(any(n.endswith("licenses/LICENSE") for n in names), "the licence is not in the wheel")
    strays = [n for n in names if n.startswith("tests/") or "/test_" in n or n.endswith(".pyc")]
    expect(not strays, f"does not belong in a wheel: {strays}")
    for line in ("ckpt-rules = ckpt_rules.cli:main", "[ckpt_rules]", "files = ckpt_rules_files", "[pytest11]"):
        expect(line in entry_points, f"no '{line}' among the entry points")


def check_sdist(sdist: Path, wheel: Path, out: Path) -> None:
    """The wheel that is built from the sdist holds the same files, byte for byte."""
    step(f"building a wheel from {sdist.name}")
    with tarfile.open(sdist) as archive:
        archive.extractall(out, filter="data")
    unpacked = next(out.iterdir())
    run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out / "dist"), str(unpacked)],
        cwd=out,
    )
    again = next((out / "dist").glob("*.whl"))
    here, there = contents(wheel), contents(again)
    differing = sorted(n for n in here.keys() | there.keys() if here.get(n) != there.get(n))
    expect(not differing, f"the wheel from the sdist differs in {differing}")


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def checkpoints(home: Path) -> tuple[Path, Path]:
    """A clean checkpoint by real writers and a copy that was cut short, made here, where torch is."""
    from ckpt_rules.testing import build_plain_torch

    clean = build_plain_torch(home / "clean", with_torch=True)
    damaged = clean.copy(home / "damaged").truncate("training_state.pth", keep=0.5)
    return Path(clean.path), Path(damaged.path)


@dataclass
class Room:
    """A fresh environment, and an empty directory to work in."""

    environment: Path
    directory: Path

    def __post_init__(self) -> None:
        step("creating a clean environment")
        venv.create(self.environment, with_pip=True)
        self.directory.mkdir()

    def install(self, *what: str) -> None:
        # The venv's own pip is as old as the Python; ours installs into it.
        pip = [sys.executable, "-m", "pip", "--python", str(self.environment), "install", "--quiet"]
        constraints = str(REPO / "constraints.txt")
        run([*pip, "--constraint", constraints, "--build-constraint", constraints, *what], cwd=self.directory)

    def run(self, *argv: str, exit_code: int = 0) -> str:
        """Run a program of the environment and return what it printed; its exit code must be the given one."""
        program, *rest = argv
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "COVERAGE"))}
        return run([str(self.environment / "bin" / program), *rest], cwd=self.directory, env=clean, exit_code=exit_code)


def check_alone(room: Room, wheel: Path, clean: Path, damaged: Path) -> None:
    """The wheel with nothing but its own dependencies: no torch, no safetensors."""
    step("installing the wheel")
    room.install(str(wheel))
    for absent in ("torch", "safetensors"):
        room.run("python", "-c", f"import {absent}", exit_code=1)
    home = room.run("python", "-c", "import ckpt_rules; print(ckpt_rules.__file__)")
    expect(str(REPO) not in home, f"ckpt_rules was imported from the checkout: {home}")
    expect(room.run("ckpt-rules", "--version").split()[-1] == wheel.name.split("-")[1], "--version and wheel disagree")
    for ruleset in ("quick", "default", "ci", "deep"):
        room.run("ckpt-rules", "verify", str(clean), "--ruleset", ruleset)
    expect(
        "all values are finite" in room.run("ckpt-rules", "stats", str(clean)), "stats does not tell of every tensor"
    )
    sealed = shutil.copytree(clean, clean.with_name("sealed"))
    room.run("ckpt-rules", "seal", str(sealed))
    room.run("ckpt-rules", "verify", str(sealed), "--ruleset", "deep", "--strict")
    room.run("ckpt-rules", "diff", str(clean), str(sealed), exit_code=1)
    text = room.run("ckpt-rules", "verify", str(damaged), exit_code=1)
    expect("training_state.pth" in text, f"the damaged file is not named:\n{text}")
    for family in ("files", "weights", "training", "torch"):
        expect(family in room.run("ckpt-rules", "plugins"), f"the plugin {family} is not listed")
    expect("quick" in room.run("ckpt-rules", "rulesets"), "the built-in rulesets are not listed")
    expect("Why it matters" in room.run("ckpt-rules", "rule", "optimizer/step-drift"), "a rule's page is not printed")
    (room.directory / "bad.yaml").write_text("rules:\n  optimizer/step-drit: error\n", encoding="utf-8")
    text = room.run("ckpt-rules", "verify", str(clean), "--ruleset", "bad.yaml", exit_code=2)
    expect("bad.yaml:2:3" in text and "optimizer/step-drift" in text, f"the misspelt rule is not explained:\n{text}")


def check_with_example(room: Room, wheel: Path, clean: Path, work: Path) -> None:
    """A stranger's distribution beside ours: its rules run, and its own tests pass with our kit."""
    step(f"installing {EXAMPLE} beside it")
    example = work / EXAMPLE
    shutil.copytree(REPO / "examples" / EXAMPLE, example, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    room.install(str(example), f"{wheel}[testing]")
    expect("acme" in room.run("ckpt-rules", "plugins"), "the example plugin is not listed")
    shown = room.run("ckpt-rules", "rulesets", "show", "acme:house")
    expect("acme/" in shown, f"no rule of the example is in force with its own ruleset:\n{shown}")
    text = room.run("ckpt-rules", "verify", str(clean), "--ruleset", "acme:house", "--format", "json")
    expect('"acme/' in text, "no rule of the example ran")
    room.run("ckpt-rules", "verify", str(clean), "--ruleset", "acme:house", "--no-plugin", "acme", exit_code=2)
    print(room.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(example / "tests")).strip())


def run(argv: list[str], *, cwd: Path, env: dict[str, str] | None = None, exit_code: int = 0) -> str:
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    expect(
        done.returncode == exit_code, f"{' '.join(argv)}\nended with {done.returncode}, not {exit_code}:\n{done.stdout}"
    )
    return done.stdout


def expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SystemExit(f"wheel test failed: {otherwise}")


def step(what: str) -> None:
    print(f"wheel test: {what}", flush=True)


if __name__ == "__main__":
    main()
