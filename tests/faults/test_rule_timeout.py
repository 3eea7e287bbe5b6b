"""A rule that takes too long is stopped, the others run, and nothing that it left half done is believed."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from ckpt_rules import FactUnavailable, Match, Problem, Progress, ResumePlan, Status, UsageError, Verdict, verify
from ckpt_rules.engine import run as run_over
from ckpt_rules.layout import Layout
from ckpt_rules.reporters.text import render
from ckpt_rules.storage import LocalStorage
from ckpt_rules.time_limit import TimeLimitExceeded, checked, limited

SHORT, LONG = 0.2, 600


def for_ever(*_):
    while True:
        pass


def stubborn(*_):
    """Continues for a while whatever is raised in it, as one with an `except` that takes anything."""
    for _ in range(3):
        try:
            for_ever()
        except BaseException:  # noqa: BLE001
            continue


@pytest.fixture
def run(tmp_path):
    def go(*rules, ruleset, timeout=SHORT):
        return run_over(LocalStorage(tmp_path), ruleset(*rules), timeout)

    return go


@pytest.fixture(params=["main", "other"])
def in_thread(request):
    """Call a function in the main thread, or in another."""

    def call(function):
        if request.param == "main":
            return function()
        answers = []
        thread = threading.Thread(target=lambda: answers.append(function()))
        thread.start()
        thread.join(60)
        return answers[0]

    return call


class TestTheOutcome:
    def test_says_so_and_the_others_ran(self, run, ruleset_of, fake_rule, in_thread):
        def check(_):
            yield Problem(message="it is bad")
            for_ever()

        report = in_thread(lambda: run(fake_rule(check=check), fake_rule("acme/fine"), ruleset=ruleset_of))
        stopped, fine = report.outcomes
        assert (stopped.status, stopped.reason) == (Status.CRASHED, "stopped after 0.2 s (rule-timeout)")
        assert [f.message for f in stopped.findings] == ["it is bad"]
        assert "in for_ever" in stopped.crash.traceback
        assert (fine.status, report.verdict) == (Status.PASSED, Verdict.UNKNOWN)
        assert report.reason == (
            "cannot tell whether it is safe to resume: 1 rule took too long; it is not safe as far as it was checked: 1 error"
        )

    def test_is_told_from_a_crash(self, run, ruleset_of, fake_rule):
        report = run(fake_rule(check=for_ever), fake_rule("acme/worse", lambda _: 1 / 0), ruleset=ruleset_of)
        assert report.reason.endswith("1 rule crashed and 1 rule took too long")
        text = render(report)
        assert (
            "  crashed  acme/bad\n"
            "           stopped after 0.2 s (rule-timeout)\n"
            "           a slow disk, or a loop without end in a plugin; --verbose shows where\n"
            "           it was\n"
        ) in text
        assert "in for_ever" in render(report, verbose=True)

    @pytest.mark.parametrize(
        "check", [for_ever, stubborn, lambda _: time.sleep(LONG)], ids=["loop", "stubborn", "sleep"]
    )
    def test_whatever_the_rule_does(self, run, ruleset_of, fake_rule, check):
        (outcome,) = run(fake_rule(check=check), ruleset=ruleset_of).outcomes
        assert (outcome.status, outcome.reason) == (Status.CRASHED, "stopped after 0.2 s (rule-timeout)")

    def test_a_rule_that_turns_it_into_another_exception(self, run, ruleset_of, fake_rule, in_thread):
        def check(_):
            try:
                for_ever()
            except BaseException:  # noqa: BLE001
                raise FactUnavailable("there is none") from None

        (outcome,) = in_thread(lambda: run(fake_rule(check=check), ruleset=ruleset_of)).outcomes
        assert (outcome.status, outcome.reason) == (Status.CRASHED, "stopped after 0.2 s (rule-timeout)")

    def test_a_regular_expression_without_end(self, run, ruleset_of, fake_rule):
        import re

        (outcome,) = run(fake_rule(check=lambda _: re.match("(a+)+b", "a" * 60)), ruleset=ruleset_of).outcomes
        assert outcome.status is Status.CRASHED

    def test_quick_rules_are_not_touched(self, run, ruleset_of, fake_rule, in_thread):
        rules = [fake_rule("acme/a"), fake_rule("acme/b", finds=["it is bad"])]
        report = in_thread(lambda: run(*rules, ruleset=ruleset_of, timeout=LONG))
        assert [o.status for o in report.outcomes] == [Status.PASSED, Status.FAILED]
        assert threading.active_count() == len(threading.enumerate())


class TestFacts:
    def test_one_that_was_being_computed_is_computed_again(self, run, ruleset_of, fake_rule):
        asked = []

        def fact(checkpoint):
            asked.append("fact")
            return 7 if len(asked) > 1 else for_ever()

        def check(checkpoint):
            assert checkpoint.fact(fact) == 7
            return []

        report = run(fake_rule("acme/a", check), fake_rule("acme/b", check), ruleset=ruleset_of)
        assert [o.status for o in report.outcomes] == [Status.CRASHED, Status.PASSED]

    def test_one_that_came_out_wrong_for_it_is_not_kept(self, run, ruleset_of, fake_rule):
        asked = []

        def fact(checkpoint):
            asked.append("fact")
            return 7 if len(asked) > 1 else stubborn()

        def check(checkpoint):
            assert checkpoint.fact(fact) == 7
            return []

        report = run(fake_rule("acme/a", check), fake_rule("acme/b", check), ruleset=ruleset_of)
        assert [o.status for o in report.outcomes] == [Status.CRASHED, Status.PASSED]

    def test_the_memory_that_they_took_is_given_back(self, tmp_path, ruleset_of, fake_rule):
        rooms = []

        def waste(checkpoint):
            rooms.append(checkpoint.files.budget.room)
            checkpoint.files.budget.charge(1000, "it")
            for_ever()

        def look(checkpoint):
            rooms.append(checkpoint.files.budget.room)
            return []

        run_over(LocalStorage(tmp_path), ruleset_of(fake_rule("acme/a", waste), fake_rule("acme/b", look)), SHORT)
        assert rooms[0] == rooms[1]

    @pytest.mark.parametrize("method", ["recognise", "progress"])
    def test_a_layout_that_never_answers_does_not_hold_up_the_run(self, run, ruleset_of, fake_rule, plugins_of, method):
        def recognise(self, checkpoint):
            return Match(90, ("x",))

        def progress(self, checkpoint):
            return Progress(epoch=1, complete=True, plan=ResumePlan("epoch 2 starts", epoch=2))

        methods = {"recognise": recognise, "progress": progress, method: for_ever}
        layout = type("Slow", (Layout,), {"name": "slow", "title": "slow", **methods})()
        plugins = plugins_of(acme={"rules": [rule := fake_rule()], "layouts": [layout]})
        report = run(rule, ruleset=lambda *rules: ruleset_of(*rules, plugins=plugins))
        assert (report.outcomes[0].status, report.resume) == (Status.PASSED, None)
        words = "the layout slow of acme (ckpt-rules-acme 1.2) crashed: TimeLimitExceeded: it took longer than the rule timeout"
        said = [n.message for n in report.notices if not n.message.startswith("name its layout with --layout")]
        assert said == ([words] if method == "recognise" else [])


class TestTheProcessAround:
    def test_the_handler_and_the_timer_are_put_back(self):
        rung = []
        before = signal.signal(signal.SIGALRM, lambda *_: rung.append("rung"))
        ours = signal.getsignal(signal.SIGALRM)
        signal.setitimer(signal.ITIMER_REAL, LONG, 7)
        try:
            with pytest.raises(TimeLimitExceeded):
                limited(SHORT, for_ever)
            assert limited(SHORT, lambda: "quick") == "quick"
            delay, interval = signal.getitimer(signal.ITIMER_REAL)
            assert (0 < delay < LONG, interval, signal.getsignal(signal.SIGALRM)) == (True, 7, ours)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert rung == []

    def test_a_timer_that_should_have_rung_meanwhile_rings_after(self):
        rung = []
        before = signal.signal(signal.SIGALRM, lambda *_: rung.append("rung"))
        signal.setitimer(signal.ITIMER_REAL, SHORT / 10)
        try:
            with pytest.raises(TimeLimitExceeded):
                limited(SHORT, for_ever)
            while not rung:
                time.sleep(0.001)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert rung == ["rung"]

    def test_no_timer_is_left_after_a_limit(self):
        with pytest.raises(TimeLimitExceeded):
            limited(SHORT, for_ever)
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)

    def test_no_thread_is_left_after_a_limit(self, in_thread):
        def stopped():
            with pytest.raises(TimeLimitExceeded):
                limited(SHORT, for_ever)
            return True

        assert in_thread(stopped)
        assert [t for t in threading.enumerate() if "ckpt-rules" in t.name] == []

    def test_interrupting_it_interrupts(self):
        def pressed():
            os.kill(os.getpid(), signal.SIGINT)
            for_ever()

        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                limited(LONG, pressed)
        finally:
            signal.signal(signal.SIGINT, before)
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


class TestTheOption:
    @pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e300, "5"])
    def test_what_is_no_number_of_seconds_is_refused(self, tmp_path, seconds):
        with pytest.raises(UsageError, match=r"the rule timeout is .*; it must be a number of seconds, above 0"):
            verify(tmp_path, rule_timeout=seconds)

    @pytest.mark.parametrize("seconds", [None, 1, 0.5, 1_000_000])
    def test_what_is_one_is_taken(self, seconds):
        assert checked(seconds) == seconds

    def test_from_python(self, make_checkpoint):
        assert verify(make_checkpoint().path, rule_timeout=LONG).passed

    @pytest.mark.parametrize("given", ["0", "-3", "nan", "inf", "soon", ""])
    def test_a_bad_one_on_the_command_line(self, command, make_checkpoint, given):
        ended = command("verify", make_checkpoint().path, f"--rule-timeout={given}")
        assert (ended.returncode, ended.stdout) == (2, b"")
        assert b"Traceback" not in ended.stderr
        assert b"rule" in ended.stderr

    def test_a_layout_without_end_on_the_command_line(self, command, make_checkpoint, sick_ruleset):
        make_checkpoint("run/step-500")
        path = make_checkpoint("run/step-600").path.parent
        ruleset = sick_ruleset(
            top="""
            from ckpt_rules import Layout, hookimpl

            class Slow(Layout):
                name = title = "slow"

                def recognise(self, checkpoint):
                    while True:
                        pass

            @hookimpl
            def ckpt_rules_layouts():
                return [Slow()]

            @hookimpl
            def ckpt_rules_rules():
                return [Sick]
            """
        )
        ended = command("verify", path, "--ruleset", ruleset, "--rule-timeout", "0.1")
        assert (ended.returncode, ended.stderr) == (2, b"")
        assert ended.stdout.decode().count("crashed: TimeLimitExceeded:") == 2

    def test_on_the_command_line(self, command, make_checkpoint, sick_ruleset):
        arguments = ["verify", make_checkpoint().path, "--ruleset", sick_ruleset("while True: pass")]
        ended = command(*arguments, "--rule-timeout", "0.2")
        assert (ended.returncode, ended.stderr) == (2, b"")
        assert "stopped after 0.2 s (rule-timeout)" in ended.stdout.decode()
