"""Any arguments whatsoever: an exit code that means something, a message where it is 2, and never a traceback."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from ckpt_rules.cli import main
from ckpt_rules.testing import build_plain_torch

COMMANDS = ["verify", "inspect", "rules", "rule", "rulesets", "plugins", "schema", "show", "latest"]
OPTIONS = [
    "--ruleset", "-r", "--strict", "--no-strict", "--format", "-f", "--output", "-o", "--select", "--exclude",
    "--no-plugin", "--rule-timeout", "--verbose", "-v", "--quiet", "-q", "--exit-zero", "--help", "-h", "--version",
    "--no-such", "--rule", "-x", "-", "--", "---", "--=", "-vq", "-rf",
]  # fmt: skip
VALUES = [
    "", " ", "\0", "a\0b", "\n", "\x1b[31m", "\udcff", "\udcff\udcfe.yaml", "größe", "\u202e", "a" * 5_000,
    "x/" * 3_000, "[", "[!", "[]]", "***", "?", "*/*", "tag:", "tag:*", "tag:\0", "files/*", "FILES/EMPTY", "files/empt",
    "!files/empty", "{}", "%s%n", "$(id)", "~", "../..", ".", "ck", "ck/", "./ck/../ck", "ck/config.json", "no/such",
    "/dev/null", "/dev/zero", "/dev/full", "default", "quick", "ci", "acme:house", ":", "a:b:c",
    "json", "text", "markdown", "report", "ruleset", "0", "-1", "0.5", "1e999", "nan", "NaN", "0x10", "٣", "file",
    "files", "torch", "ruleset.yaml", "broken.yaml", "other.txt",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, two rulesets and a file; commands may write more of them."""
    folder = tmp_path_factory.mktemp("fuzz")
    build_plain_torch(folder / "ck", with_torch=False)
    (folder / "file").write_text("x")
    (folder / "ruleset.yaml").write_text("extends: [quick]\n")
    (folder / "broken.yaml").write_bytes(b"\xff\x00: [")
    return folder


@pytest.fixture
def place(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CKPT_RULES_TRACEBACK", raising=False)
    return folder


@pytest.fixture
def is_civil(capsys):
    """Run a command in this process; True where it ended as it should."""

    def run(given):
        code = main(given)
        captured = capsys.readouterr()
        return civil(code, captured.out, captured.err)

    return run


def arguments(source):
    """A command, mostly, and then anything; options with values, values alone, values glued to options."""
    yield source.choice(COMMANDS if source.random() < 0.9 else VALUES)
    for _ in range(source.randrange(6)):
        kind = source.random()
        if kind < 0.4:
            yield source.choice(VALUES)
        elif kind < 0.6:
            yield source.choice(OPTIONS)
        elif kind < 0.8:
            yield f"{source.choice(OPTIONS)}={source.choice(VALUES)}"
        else:
            yield source.choice(OPTIONS)
            yield source.choice(VALUES)


def civil(code, out, err):
    """Whether a known code was returned, something was said where it is 2, and nothing that a user should not see."""
    said = out + err
    unwanted = ("Traceback (", "This is a bug", "\x1b", "\0")
    return code in {0, 1, 2} and bool(said or code != 2) and not any(text in said for text in unwanted)


@pytest.mark.parametrize("tens", range(8))
def test_any_arguments(place, is_civil, tens):
    cases = [list(arguments(random.Random(seed))) for seed in range(tens * 40, tens * 40 + 40)]
    assert [given for given in cases if not is_civil(given)] == []


@pytest.mark.parametrize(
    "before",
    [
        ["verify"],
        ["inspect"],
        ["verify", "ck", "-r"],
        ["verify", "ck", "-f"],
        ["verify", "ck", "-q", "--select"],
        ["verify", "ck", "--exclude"],
        ["verify", "ck", "--no-plugin"],
        ["verify", "ck", "-q", "-r", "quick", "--rule-timeout"],
        ["verify", "ck", "-q", "-r", "quick", "-o"],
        ["latest"],
        ["verify", "ck", "-q", "--layout"],
        ["rules"],
        ["rule"],
        ["rulesets", "show"],
        ["schema"],
        [],
    ],
    ids=" ".join,
)
def test_any_value_in_any_place(place, is_civil, before):
    assert [value for value in VALUES if not is_civil([*before, value])] == []


@pytest.mark.parametrize(
    "line",
    [
        [b"verify", b"\xff\xfe"],
        [b"verify", b"ck", b"--ruleset", b"\xff.yaml"],
        [b"verify", b"ck", b"--select", b"\xff*"],
        [b"verify", b"ck", b"--format", b"\x1b[31m\xff"],
        [b"rule", b"\xff/\xfe"],
        [b"\xff"],
        [b"verify", b"a" * 100_000],
        [b"verify", *[b"no/such"] * 500],
    ],
    ids=range(8),
)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_bytes_that_are_no_text(place, line, locale):
    environment = os.environ | {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run(
        [sys.executable, "-m", "ckpt_rules", *line], capture_output=True, check=False, timeout=60, env=environment
    )
    assert ended.returncode in {1, 2}
    assert civil(ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))


@pytest.mark.parametrize(
    "line", ["verify ck", "verify no/such", "inspect ck", "verify {} -r quick.yaml", "verify {}", "rules"]
)
def test_a_working_directory_that_is_gone(place, line):
    gone = place / "gone"
    gone.mkdir()
    code = (
        "import os, shutil, sys; from ckpt_rules.cli import main; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]);"
        "sys.exit(main(sys.argv[2:]))"
    )
    words = line.format(place / "ck").split()
    ended = subprocess.run([sys.executable, "-c", code, gone, *words], capture_output=True, check=False, timeout=60)
    assert civil(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
