"""Plugins that raise what nobody expects, answer rubbish, print or break standard output: the run continues and says so.

How the engine treats the ordinary mistakes of rules, layouts and observers is in tests/test_engine.py.
"""

from __future__ import annotations

import json

import pytest

from ckpt_rules import FactUnavailable, Match, Problem, Severity, Status, Verdict
from ckpt_rules.cli import main
from ckpt_rules.engine import MAX_PROBLEMS, MAX_TEXT
from ckpt_rules.engine import run as run_over
from ckpt_rules.inspection.inspecting import inspect_checkpoint
from ckpt_rules.layout import Layout
from ckpt_rules.opening import open_checkpoint
from ckpt_rules.ruleset.resolved import Ignore, Origin
from ckpt_rules.storage import LocalStorage


class Odd(BaseException):
    """What `except Exception` does not catch."""


class Mute(FactUnavailable):
    def __init__(self):
        pass


def raising(error):
    def function(*_, **__):
        raise error

    return function


@pytest.fixture
def run(tmp_path):
    def go(ruleset, path=tmp_path):
        return run_over(LocalStorage(path), ruleset)

    return go


@pytest.mark.parametrize("error", [Odd("odd"), GeneratorExit("odd"), BaseExceptionGroup("odd", [Odd()])], ids=repr)
class TestOtherThanExceptions:
    def test_from_a_rule(self, run, ruleset_of, fake_rule, error):
        report = run(ruleset_of(fake_rule(check=raising(error)), fake_rule("acme/fine")))
        assert [o.status for o in report.outcomes] == [Status.CRASHED, Status.PASSED]
        assert (report.outcomes[0].crash.type, report.verdict) == (type(error).__name__, Verdict.UNKNOWN)

    def test_from_a_layout(self, run, ruleset_of, fake_rule, plugins_of, error):
        layout = layout_that(recognise=raising(error))
        plugins = plugins_of(acme={"rules": [rule := fake_rule()], "layouts": [layout]})
        report = run(ruleset_of(rule, plugins=plugins))
        assert report.notices[0].message.startswith("the layout broken of acme (ckpt-rules-acme 1.2) crashed: ")
        assert report.verdict is Verdict.UNKNOWN

    def test_from_a_fact_of_a_layout(self, run, ruleset_of, fake_rule, plugins_of, tmp_path, error):
        layout = layout_that(recognise=lambda _: Match(90, ("x",)), progress=raising(error))
        plugins = plugins_of(acme={"rules": [rule := fake_rule()], "layouts": [layout]})
        assert run(ruleset_of(rule, plugins=plugins)).resume is None
        inspection = inspect_checkpoint(*open_checkpoint(LocalStorage(tmp_path), plugins))
        assert inspection.unavailable["progress"].startswith(f"the layout crashed: {type(error).__name__}: odd")

    @pytest.mark.parametrize("hook", ["run_started", "rule_finished", "run_finished"])
    def test_from_an_observer(self, run, ruleset_of, fake_rule, understood, plugins_of, hook, error):
        plugins = plugins_of(acme={"rules": [rule := fake_rule()], "layouts": [understood]}, bad={hook: raising(error)})
        report = run(ruleset_of(rule, plugins=plugins))
        assert report.notices[0].message.startswith(f"the plugin bad crashed in ckpt_rules_{hook}: ")
        assert report.verdict is Verdict.UNKNOWN

    @pytest.mark.parametrize("hook", ["rules", "layouts", "reporters", "rulesets"])
    def test_while_it_is_collected(self, load, hook, error):
        assert load(**{hook: raising(error)}).crash.type == type(error).__name__


def layout_that(**methods):
    methods = {name: lambda self, checkpoint, f=function: f(checkpoint) for name, function in methods.items()}
    return type("Broken", (Layout,), {"name": "broken", "title": "broken", **methods})()


class TestInterrupts:
    def test_from_anywhere_in_a_plugin_interrupt_the_run(self, run, load, ruleset_of, fake_rule, plugins_of):
        stop = raising(KeyboardInterrupt())
        plugins = plugins_of(acme={"rules": [rule := fake_rule()], "layouts": [layout_that(recognise=stop)]})
        late = layout_that(recognise=lambda _: Match(90, ("x",)), progress=stop)
        for ruleset in (
            ruleset_of(fake_rule(check=stop)),
            ruleset_of(rule, plugins=plugins),
            ruleset_of(rule, plugins=plugins_of(acme={"rules": [rule], "layouts": [late]})),
            ruleset_of(rule, plugins=plugins_of(acme={"rules": [rule], "run_finished": stop})),
        ):
            with pytest.raises(KeyboardInterrupt):
                run(ruleset)
        with pytest.raises(KeyboardInterrupt):
            load(rules=stop)


class TestRubbish:
    @pytest.mark.parametrize(
        ("absent", "reason", "blocked_by"),
        [
            (FactUnavailable(7), "7", None),
            (FactUnavailable(None, path=7, blocked="yes"), "None", "7"),
            (Mute(), "no reason was given", None),
        ],
        ids=["a number", "a number as path", "nothing"],
    )
    def test_reasons_for_an_absent_fact_are_taken_as_they_are(
        self, run, ruleset_of, fake_rule, absent, reason, blocked_by
    ):
        (outcome,) = run(ruleset_of(fake_rule(check=raising(absent)))).outcomes
        assert (outcome.status, outcome.reason, outcome.blocked_by) == (Status.SKIPPED, reason, blocked_by)

    @pytest.mark.parametrize(
        ("attribute", "value", "message"),
        [
            ("severity", "awful", "severity of acme/bad is 'awful'; it must be a Severity"),
            ("tags", 7, "tags of acme/bad is 7; it must be a set of words"),
            ("tags", "resume", "tags of acme/bad is 'resume'; it must be a set of words"),
            ("tags", (1,), "tags of acme/bad is (1,); it must be a set of words"),
            ("reads", None, "reads of acme/bad is None; it must be a Reads"),
            ("former_ids", "acme/old", "former_ids of acme/bad is 'acme/old'; it must be a tuple of ids"),
        ],
    )
    def test_attributes_of_a_rule_are_refused_when_it_is_loaded(self, load, fake_rule, attribute, value, message):
        crash = load(rules=[fake_rule(**{attribute: value})]).crash
        assert (crash.type, crash.message) == ("PluginError", message)

    @pytest.mark.parametrize("match", [Match("90", ("x",)), Match(90, None), Match(None, ())], ids=repr)
    def test_a_match_that_is_none_is_a_crash_of_the_layout(self, run, ruleset_of, fake_rule, plugins_of, match):
        layout = layout_that(recognise=lambda _: match)
        report = run(ruleset_of(rule := fake_rule(), plugins=plugins_of(acme={"rules": [rule], "layouts": [layout]})))
        assert report.notices[0].message.endswith("its score must be a whole number, its signs a tuple of words")
        assert (report.layout.name, report.verdict) == ("files", Verdict.UNKNOWN)

    @pytest.mark.parametrize("made", [{"message": None}, {"message": "x", "place": "here"}, {}])
    def test_a_problem_that_was_never_validated_is_a_crash(self, run, ruleset_of, fake_rule, made):
        report = run(ruleset_of(fake_rule(check=lambda _: [Problem.model_construct(**made)])))
        assert (report.outcomes[0].status, report.verdict) == (Status.CRASHED, Verdict.UNKNOWN)

    def test_texts_without_measure_lose_their_middle(self, run, ruleset_of, fake_rule):
        problem = Problem(message="a" * 5_000_000, help="b" * (MAX_TEXT + 1))
        (found,) = run(ruleset_of(fake_rule(check=lambda _: [problem]))).findings
        assert found.message == f"{'a' * 10_000} [4,980,000 characters left out] {'a' * 10_000}"
        assert found.help == f"{'b' * 10_000} [1 characters left out] {'b' * 10_000}"

    def test_problems_without_end_come_to_one_although_all_are_ignored(self, run, ruleset_of, fake_rule, monkeypatch):
        monkeypatch.setattr("ckpt_rules.engine.MAX_PROBLEMS", 1000)

        def check(_):
            while True:
                yield Problem(message="it is bad")

        ruleset = ruleset_of(fake_rule(check=check), ignores=[Ignore("acme/bad", "known", Origin("team.yaml", 9))])
        report = run(ruleset)
        assert report.outcomes[0].crash.message == "the check of acme/bad yielded more than 1,000 problems"
        assert (report.counts.ignored, report.verdict) == (1000, Verdict.UNKNOWN)
        assert MAX_PROBLEMS > 1000


PRINTS = {
    "print": "print('hello')",
    "the real stdout": "sys.__stdout__.write('hello\\n')",
    "the descriptor": "os.write(1, b'hello\\n')",
    "a child": "subprocess.run(['echo', 'hello'])",
    "then replaces stdout": "print('hello'); sys.stdout = None",
    "then closes stdout's descriptor": "print('hello', flush=True); os.close(1)",
}


@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
class TestPrinting:
    @pytest.mark.parametrize("where", ["import", "check"])
    @pytest.mark.parametrize("how", PRINTS)
    def test_leaves_the_json_alone(self, command, make_checkpoint, sick_ruleset, where, how, buffered):
        ruleset = sick_ruleset(top=PRINTS[how]) if where == "import" else sick_ruleset(f"{PRINTS[how]}\nreturn []")
        ended = command("verify", make_checkpoint().path, "--ruleset", ruleset, "-f", "json", PYTHONUNBUFFERED=buffered)
        assert (json.loads(ended.stdout)["verdict"], ended.returncode, ended.stderr) == ("passed", 0, b"hello\n")

    def test_closing_stdout_is_an_unknown_answer(self, command, make_checkpoint, sick_ruleset, buffered):
        ruleset = sick_ruleset("sys.__stdout__.close()\nreturn []")
        ended = command("verify", make_checkpoint().path, "--ruleset", ruleset, PYTHONUNBUFFERED=buffered)
        assert (ended.returncode, ended.stderr) == (2, b"error: standard output can't be written to: it is closed\n")

    def test_closing_stderr_changes_nothing(self, command, make_checkpoint, sick_ruleset, buffered):
        ruleset = sick_ruleset("sys.__stderr__.close()\nreturn []")
        ended = command("verify", make_checkpoint().path, "--ruleset", ruleset, "-f", "json", PYTHONUNBUFFERED=buffered)
        assert (json.loads(ended.stdout)["verdict"], ended.returncode) == ("passed", 0)


def test_a_reporter_that_cannot_say_what_went_wrong(command, make_checkpoint, sick_ruleset):
    ruleset = sick_ruleset(
        top="""
        from ckpt_rules import hookimpl

        class Mute(BaseException):
            def __str__(self):
                raise ValueError

        def mute(report):
            raise Mute

        @hookimpl
        def ckpt_rules_reporters():
            return {"mute": mute}

        @hookimpl
        def ckpt_rules_rules():
            return [Sick]
        """
    )
    ended = command("verify", make_checkpoint().path, "--ruleset", ruleset, "--format", "mute", "--output", "report")
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert (
        ended.stderr == b"error: the reporter 'mute' crashed: Mute: its text is not available: __str__ raises as well\n"
    )


@pytest.mark.parametrize(
    "spaces", ["a" + " " * 200_000 + "b", " \n" * 200_000 + "b", " " * 200_000], ids=["a", "b", "c"]
)
def test_text_with_very_many_spaces_is_shown_at_once(run, ruleset_of, fake_rule, spaces):
    from ckpt_rules.reporters.text import render

    report = run(ruleset_of(fake_rule(check=lambda _: [Problem(message=spaces, severity=Severity.ERROR)])))
    assert "1 error" in render(report)


def test_a_validator_of_options_that_raises_anything_is_a_mistake_with_its_line(command, make_checkpoint, sick_ruleset):
    ruleset = sick_ruleset(
        top="""
        from pydantic import field_validator

        class Odd(BaseException):
            pass

        class Strange(Rule):
            '''Something is bad.

            ## What it checks
            Nothing of use.

            ## Why it matters
            It does not.

            ## How to repair
            There is no way.
            '''

            id = "sick/strange"
            size: int = 3

            @field_validator("size")
            @classmethod
            def odd(cls, value):
                raise Odd("odd")
        """
    )
    with ruleset.open("a") as file:
        file.write("rules:\n  sick/strange: {options: {size: 4}}\n")
    ended = command("verify", make_checkpoint().path, "--ruleset", ruleset)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert f"{ruleset}:4:3: sick/strange crashed when it was given its options: Odd: odd" in ended.stderr.decode()


def test_what_slips_past_every_boundary_is_a_message_too(monkeypatch, capsys):
    monkeypatch.delenv("CKPT_RULES_TRACEBACK", raising=False)
    monkeypatch.setattr("ckpt_rules.api.load_ruleset", raising(Odd("odd")))
    assert main(["verify", "ck"]) == 2
    assert capsys.readouterr().err.startswith("error: ckpt-rules itself failed, Odd: odd\nThis is a bug")
