"""Every exit code that a command can end with, and why. 2 outranks 1, and no format or flag but --exit-zero changes one."""

from __future__ import annotations

import sys

import pytest

from ckpt_rules import Severity

PASSED, FAILED, UNKNOWN = 0, 1, 2


@pytest.fixture
def acme(install, fake_rule, understood):
    """Rules of a plugin: one that passes, one for each severity, one that crashes, one that is skipped."""

    def crash(_):
        raise ZeroDivisionError

    rules = [
        fake_rule("acme/fine"),
        fake_rule("acme/error", finds=["it is bad"]),
        fake_rule("acme/warning", finds=["it is odd"], severity=Severity.WARNING),
        fake_rule("acme/info", finds=["it is so"], severity=Severity.INFO),
        fake_rule("acme/crash", crash),
        fake_rule("acme/skipped", lambda checkpoint: checkpoint.files.safetensors("absent")),
    ]
    install(
        acme={
            "rules": rules,
            "layouts": [understood],
            "reporters": lambda: {"terse": lambda report: report.verdict.value},
        }
    )


@pytest.mark.parametrize(
    ("rules", "flags", "code"),
    [
        (["fine"], [], PASSED),
        (["fine", "skipped"], [], PASSED),
        (["warning"], [], PASSED),
        (["warning"], ["--no-strict"], PASSED),
        (["info"], ["--strict"], PASSED),
        (["error"], [], FAILED),
        (["warning"], ["--strict"], FAILED),
        (["warning"], ["--ruleset", "ci"], FAILED),
        (["error"], ["--exit-zero"], PASSED),
        (["skipped"], [], UNKNOWN),
        (["crash"], [], UNKNOWN),
        (["crash", "fine"], [], UNKNOWN),
        (["crash", "error"], [], UNKNOWN),
        (["crash"], ["--exit-zero"], UNKNOWN),
        (["fine"], ["--exclude", "acme/*"], UNKNOWN),
        (["fine"], ["--ruleset", "no-such"], UNKNOWN),
        (["fine"], ["--format", "no-such"], UNKNOWN),
        (["fine"], ["--select", "acme/no-such"], UNKNOWN),
        (["fine"], ["--exclude", "acme/no-such"], UNKNOWN),
        (["fine"], ["--no-plugin", "no-such"], UNKNOWN),
        (["fine"], ["--no-plugin", "acme"], UNKNOWN),
        (["fine"], ["--no-such"], UNKNOWN),
        (["fine"], ["--quiet", "--verbose"], UNKNOWN),
        (["fine"], ["--output", "/no/such/folder/report.txt"], UNKNOWN),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@pytest.mark.parametrize("form", ["text", "json", "terse"])
def test_verify(run, acme, tmp_path, rules, flags, code, form):
    selected = [word for rule in rules for word in ("--select", f"acme/{rule}")]
    ended = run("verify", tmp_path, "--format", form, *selected, *flags)
    assert ended.code == code
    assert "Traceback" not in ended.err
    assert form == "json" or "Traceback" not in ended.out


@pytest.mark.parametrize(("rules", "code"), [(["fine"], PASSED), (["error"], FAILED), (["error", "crash"], UNKNOWN)])
@pytest.mark.parametrize("flags", [["--quiet"], ["--verbose"], ["--output", "report.txt"]])
def test_how_much_is_said_changes_no_code(run, acme, tmp_path, monkeypatch, rules, code, flags):
    monkeypatch.chdir(tmp_path)
    selected = [word for rule in rules for word in ("--select", f"acme/{rule}")]
    assert run("verify", tmp_path, *selected, *flags).code == code


def test_of_several_paths_the_worst_decides(run, install, fake_rule, understood, tmp_path):
    def check(checkpoint):
        name = checkpoint.path.rpartition("/")[2]
        return [] if name == "good" else bad() if name == "bad" else 1 / 0

    bad = lambda: fake_rule(finds=["it is bad"])().check(None)  # noqa: E731
    install(acme={"rules": [fake_rule("acme/rule", check)], "layouts": [understood]})
    for name in ("good", "bad", "ugly"):
        (tmp_path / name).mkdir()

    def code(*names):
        return run("verify", "--select", "acme/rule", *(tmp_path / n for n in names)).code

    assert code("good", "good") == PASSED
    assert code("good", "bad", "good") == FAILED
    assert code("ugly", "bad", "good") == UNKNOWN


def test_a_broken_plugin_is_unknown_whatever_was_found(run, install, fake_rule, understood, tmp_path):
    install(acme={"rules": [fake_rule("acme/fine")], "layouts": [understood]}, broken=ImportError("no module"))
    assert run("verify", tmp_path, "--select", "acme/fine").code == UNKNOWN
    assert run("verify", tmp_path, "--select", "acme/fine", "--no-plugin", "broken").code == PASSED
    assert run("plugins").code == UNKNOWN
    assert run("plugins", "--no-plugin", "broken").code == PASSED
    assert run("inspect", tmp_path).code == UNKNOWN


def test_two_plugins_that_claim_one_rule(run, install, fake_rule, tmp_path):
    install(acme={"rules": [fake_rule("acme/fine")]}, other={"rules": [fake_rule("acme/fine")]})
    for command in (["verify", tmp_path], ["inspect", tmp_path], ["rules"], ["plugins"], ["rulesets"]):
        ended = run(*command)
        assert (ended.code, ended.out) == (UNKNOWN, "")
        assert (
            "two plugins claim the rule 'acme/fine': acme (ckpt-rules-acme 1.2) and other (ckpt-rules-other 1.2)"
            in ended.err
        )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], PASSED),
        (["--help"], PASSED),
        (["verify", "--help"], PASSED),
        (["rules"], PASSED),
        (["rules", "files/*"], PASSED),
        (["rule", "files/empty"], PASSED),
        (["rulesets"], PASSED),
        (["rulesets", "show", "default"], PASSED),
        (["plugins"], PASSED),
        (["schema", "report"], PASSED),
        ([], UNKNOWN),
        (["no-such"], UNKNOWN),
        (["verify"], UNKNOWN),
        (["rules", "no-such/*"], UNKNOWN),
        (["rule", "no-such/rule"], UNKNOWN),
        (["rulesets", "show", "no-such"], UNKNOWN),
        (["rulesets", "no-such"], UNKNOWN),
        (["schema", "no-such"], UNKNOWN),
        (["inspect"], UNKNOWN),
        (["inspect", "/no/such/path"], UNKNOWN),
        (["inspect", ""], UNKNOWN),
        (["verify", ""], UNKNOWN),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_other_commands(run, arguments, code):
    assert run(*arguments).code == code


class TestTheBoundary:
    @pytest.fixture
    def failing(self, monkeypatch):
        def make(error):
            def fail(*_, **__):
                raise error

            monkeypatch.setattr("ckpt_rules.api.load_ruleset", fail)

        return make

    def test_a_bug_of_ours_is_two_lines(self, run, failing, monkeypatch):
        monkeypatch.delenv("CKPT_RULES_TRACEBACK", raising=False)
        failing(KeyError("x"))
        ended = run("verify", "ck")
        assert (ended.code, ended.out) == (UNKNOWN, "")
        assert ended.err.splitlines() == [
            "error: ckpt-rules itself failed, KeyError: 'x'",
            "This is a bug; please report it, with the traceback that CKPT_RULES_TRACEBACK=1 shows.",
        ]

    @pytest.mark.parametrize("how", ["--verbose", "variable"])
    def test_its_traceback_is_shown_when_asked_for(self, run, failing, monkeypatch, how):
        failing(KeyError("x"))
        if how == "variable":
            monkeypatch.setenv("CKPT_RULES_TRACEBACK", "1")
        ended = run("verify", "ck", *([how] if how != "variable" else []))
        assert ended.code == UNKNOWN
        assert "Traceback (most recent call last):" in ended.err

    def test_an_interrupt(self, run, failing):
        failing(KeyboardInterrupt())
        assert run("verify", "ck").code == 130

    def test_an_interrupt_while_commands_are_imported(self, run, monkeypatch):
        def interrupted(_):
            raise KeyboardInterrupt

        monkeypatch.setattr("ckpt_rules.cli.app.run", interrupted)
        assert run("--version").code == 130

    def test_a_plugin_that_ends_the_process_with_success_proves_nothing(self, run, failing):
        failing(SystemExit(0))
        assert run("verify", "ck").code == UNKNOWN

    def test_messages_carry_nothing_that_a_terminal_would_obey(self, run):
        ended = run("inspect", "/no/\x1b[31m/\udcff\n")
        assert ended.err.startswith(r"error: /no/\x1b[31m/\udcff")
        assert "\x1b" not in ended.err

    @pytest.mark.parametrize("hook", ["rules", "layouts"])
    @pytest.mark.parametrize("exits", [False, True])
    def test_what_a_plugin_prints_stays_out_of_the_json(self, run, install, tmp_path, hook, exits):
        def answer():
            sys.stdout.write("hello from a plugin\n")
            if exits:
                sys.exit(0)
            return []

        install(noisy={hook: answer})
        ended = run("verify", tmp_path, "--format", "json", "--layout", "any", "--select", "files/empty")
        assert ended.json["verdict"] == ("unknown" if exits else "passed")
        assert "hello from a plugin" in ended.err
