"""Any arguments whatsoever: an exit code that means something, a message where it is 2, and never a traceback."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from ckpt_rules.cli import main

COMMANDS = ["verify", "inspect", "rules", "rule", "rulesets", "plugins", "schema", "show"]
OPTIONS = [
    "--ruleset", "-r", "--strict", "--no-strict", "--format", "-f", "--output", "-o", "--select", "--exclude",
    "--no-plugin", "--rule-timeout", "--verbose", "-v", "--quiet", "-q", "--exit-zero", "--help", "-h", "--version",
    "--no-such", "--rule", "-x", "-", "--", "---", "--=", "-vq", "-rf",
]  # fmt: skip
VALUES = [
    "", " ", "\0", "a\0b", "\n", "\x1b[31m", "\udcff", "\udcff\udcfe.yaml", "größe", "\u202e", "a" * 5_000,
    "x/" * 3_000, "[", "[!", "[]]", "***", "?", "*/*", "tag:", "tag:*", "tag:\0", "files/*", "FILES/EMPTY", "files/empt",
    "!files/empty", "{}", "%s%n", "$(id)", "~", "../..", ".", "ck", "ck/", "./ck/../ck", "ck/config.json", "no/such",
    "/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", "default", "quick", "ci", "acme:house", ":", "a:b:c",
    "json", "text", "markdown", "report", "ruleset", "0", "-1", "0.5", "1e999", "nan", "NaN", "0x10", "٣", "file",
    "files", "torch", "ruleset.yaml", "broken.yaml", "other.txt",
]  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch, make_checkpoint):
    make_checkpoint("ck")
    (tmp_path / "file").write_text("x")
    (tmp_path / "ruleset.yaml").write_text("extends: [quick]\n")
    (tmp_path / "broken.yaml").write_bytes(b"\xff\x00: [")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CKPT_RULES_TRACEBACK", raising=False)
    return tmp_path


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


def assert_civil(code, out, err):
    assert code in {0, 1, 2}
    for text in (out, err):
        assert "Traceback" not in text
        assert "This is a bug" not in text
        assert "\x1b" not in text
        assert "\0" not in text
    assert out or err or code != 2


@pytest.mark.parametrize("seed", range(300))
def test_any_arguments(place, capsys, seed):
    given = list(arguments(random.Random(seed)))
    code = main(given)
    assert_civil(code, *capsys.readouterr())


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(
    "before",
    [
        ["verify"],
        ["inspect"],
        ["verify", "ck", "-r"],
        ["verify", "ck", "-f"],
        ["verify", "ck", "--select"],
        ["verify", "ck", "--exclude"],
        ["verify", "ck", "--no-plugin"],
        ["verify", "ck", "-q", "-r", "quick", "--rule-timeout"],
        ["verify", "ck", "-q", "-r", "quick", "-o"],
        ["rules"],
        ["rule"],
        ["rulesets", "show"],
        ["schema"],
        [],
    ],
    ids=" ".join,
)
def test_any_value_in_any_place(place, capsys, before, value):
    if value in {"/proc/self/mem", "/dev/zero"} and before[-1:] == ["-o"]:
        pytest.skip("nobody writes there")
    code = main([*before, value])
    assert_civil(code, *capsys.readouterr())


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
    assert_civil(ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))


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
    assert_civil(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
