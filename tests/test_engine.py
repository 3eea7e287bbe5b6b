"""What the engine makes of rules, layouts and observers, the well-behaved ones and the others."""

from __future__ import annotations

import json
import sys

import pytest

from ckpt_rules import (
    ExitCode,
    FactUnavailable,
    Layout,
    Match,
    Problem,
    Progress,
    Reads,
    ResumePlan,
    Severity,
    Status,
    Verdict,
)
from ckpt_rules.engine import MAX_FINDINGS, open_checkpoint
from ckpt_rules.engine import run as run_over
from ckpt_rules.finding import Finding, Place
from ckpt_rules.report import Notice
from ckpt_rules.ruleset.resolved import Ignore, Origin
from ckpt_rules.storage import LocalStorage


@pytest.fixture
def run(tmp_path):
    """Run a ruleset over an empty directory."""

    def go(ruleset, path=tmp_path):
        return run_over(LocalStorage(path), ruleset)

    return go


class TestOutcomes:
    def test_a_rule_that_yields_nothing_has_passed(self, run, ruleset_of, fake_rule):
        report = run(ruleset_of(fake_rule()))
        (outcome,) = report.outcomes
        assert (outcome.rule, outcome.plugin, outcome.status) == ("acme/bad", "acme", Status.PASSED)
        assert (report.verdict, report.exit_code) == (Verdict.PASSED, ExitCode.PASSED)

    def test_a_problem_becomes_a_finding_with_the_engines_stamp(self, run, ruleset_of, fake_rule):
        problem = Problem(message="it is bad", place=Place(path="a.pt", offset=7), help="save again", data={"n": 2})
        report = run(ruleset_of(fake_rule(check=lambda _: [problem])))
        assert report.findings == [
            Finding(
                rule="acme/bad",
                plugin="acme",
                severity=Severity.ERROR,
                place=Place(path="a.pt", offset=7),
                message="it is bad",
                help="save again",
                data={"n": 2},
            )
        ]
        assert (report.verdict, report.reason) == (Verdict.FAILED, "not safe to resume: 1 error")

    def test_a_fact_that_cannot_be_had_skips_the_rule_with_its_reason(self, run, ruleset_of, fake_rule):
        def check(_):
            raise FactUnavailable("there is no scheduler")

        report = run(ruleset_of(fake_rule(check=check), fake_rule("acme/fine")))
        assert [(o.status, o.reason) for o in report.outcomes] == [
            (Status.SKIPPED, "there is no scheduler"),
            (Status.PASSED, None),
        ]
        assert report.passed

    @pytest.mark.parametrize(
        ("names", "reason"),
        [
            ({"understood"}, None),
            ({"orbax", "understood"}, None),
            ({"orbax"}, "for the layout orbax alone"),
            ({"orbax", "keras", "lightning"}, "for the layouts keras, lightning and orbax alone"),
        ],
    )
    def test_a_rule_for_other_layouts_is_skipped_unasked(self, run, ruleset_of, fake_rule, names, reason):
        rule = fake_rule(finds=["it is bad"], applies_to=frozenset(names))
        outcome, _ = run(ruleset_of(rule, fake_rule("acme/fine"))).outcomes
        assert (outcome.status, outcome.reason) == (Status.SKIPPED if reason else Status.FAILED, reason)

    def test_no_byte_is_read_for_a_rule_for_other_layouts(self, run, ruleset_of, fake_rule):
        def never(*_):
            raise AssertionError("it was asked")

        rule = fake_rule(applies_to=frozenset({"orbax"}), reads=Reads.BYTES, wanted=never, wanted_before=never)
        report = run(ruleset_of(rule, fake_rule("acme/fine")))
        assert (report.outcomes[0].status, report.notices) == (Status.SKIPPED, ())

    def test_what_was_found_before_a_fact_was_missed_stands(self, run, ruleset_of, fake_rule):
        def check(_):
            yield Problem(message="it is bad")
            raise FactUnavailable("there is no scheduler")

        (outcome,) = run(ruleset_of(fake_rule(check=check))).outcomes
        assert (outcome.status, len(outcome.findings), outcome.reason) == (Status.FAILED, 1, "there is no scheduler")

    def test_options_that_differ_from_their_defaults_are_told(self, run, ruleset_of, fake_rule, plugins_of):
        rule = fake_rule(options={"tolerance": (int, 20), "unit": (str, "step")})
        ruleset = ruleset_of(rule)
        changed = ruleset.rules[0].__class__(rule(tolerance=3), "acme", None, Origin("team.yaml"), {})
        report = run(ruleset.__class__("team", "", False, (changed,), (), ruleset.plugins))
        assert report.outcomes[0].options == {"tolerance": 3}

    def test_a_rule_that_never_ends_finding_is_stopped(self, run, ruleset_of, fake_rule):
        def check(_):
            while True:
                yield Problem(message="it is bad")

        (outcome,) = run(ruleset_of(fake_rule(check=check))).outcomes
        assert len(outcome.findings) == MAX_FINDINGS + 1
        assert outcome.reason == "it was stopped after 10,000 findings; there are more"


class TestRulesThatMisbehave:
    def test_one_that_raises_is_crashed_and_the_others_run(self, run, ruleset_of, fake_rule):
        def check(_):
            yield Problem(message="it is bad")
            raise ZeroDivisionError("division by zero")

        report = run(ruleset_of(fake_rule(check=check), fake_rule("acme/fine")))
        crashed, fine = report.outcomes
        assert (crashed.status, len(crashed.findings), fine.status) == (Status.CRASHED, 1, Status.PASSED)
        assert (crashed.crash.type, crashed.crash.message) == ("ZeroDivisionError", "division by zero")
        assert "in check" in crashed.crash.traceback
        assert (report.verdict, report.exit_code) == (Verdict.UNKNOWN, ExitCode.UNKNOWN)
        assert report.reason == (
            "cannot tell whether it is safe to resume: 1 rule crashed; it is not safe as far as it was checked: 1 error"
        )

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (None, "the check of acme/bad returned None; it must yield each Problem, or return a list"),
            (7, "the check of acme/bad returned 7; it must yield each Problem, or return a list"),
            (["it is bad"], "the check of acme/bad yielded 'it is bad', which is not a Problem"),
            ("it", "the check of acme/bad yielded 'i', which is not a Problem"),
        ],
        ids=["None", "a number", "strings", "a string"],
    )
    def test_one_that_answers_rubbish_is_crashed(self, run, ruleset_of, fake_rule, answer, message):
        report = run(ruleset_of(fake_rule(check=lambda _: answer)))
        assert (report.outcomes[0].crash.type, report.outcomes[0].crash.message) == ("TypeError", message)
        assert report.verdict is Verdict.UNKNOWN

    def test_one_that_returns_a_bare_problem_is_crashed(self, run, ruleset_of, fake_rule):
        report = run(ruleset_of(fake_rule(check=lambda _: Problem(message="it is bad"))))
        assert "it must yield each Problem" in report.outcomes[0].crash.message

    def test_one_that_exits_with_success_ends_no_process(self, run, ruleset_of, fake_rule):
        report = run(ruleset_of(fake_rule(check=lambda _: sys.exit(0))))
        assert (report.outcomes[0].crash.type, report.verdict) == ("SystemExit", Verdict.UNKNOWN)

    def test_one_that_recurses_without_end_is_crashed(self, run, ruleset_of, fake_rule):
        def check(checkpoint):
            return check(checkpoint)

        assert run(ruleset_of(fake_rule(check=check))).outcomes[0].crash.type == "RecursionError"

    def test_an_exception_that_cannot_say_what_it_is(self, run, ruleset_of, fake_rule):
        class MuteError(Exception):
            def __str__(self):
                raise ValueError

        def check(_):
            raise MuteError

        crash = run(ruleset_of(fake_rule(check=check))).outcomes[0].crash
        assert (crash.type, crash.message) == ("MuteError", "its text is not available: __str__ raises as well")

    def test_interrupting_a_run_interrupts_it(self, run, ruleset_of, fake_rule):
        def check(_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(ruleset_of(fake_rule(check=check)))


class TestSeverity:
    @pytest.mark.parametrize(
        ("rules", "problems", "rulesets", "strict", "expected"),
        [
            ("warning", None, None, False, "warning"),
            ("warning", "error", None, False, "error"),
            ("error", "info", None, False, "info"),
            ("warning", "error", "info", False, "info"),
            ("warning", None, None, True, "error"),
            ("error", "warning", None, True, "error"),
            ("error", None, "warning", True, "error"),
            ("info", None, None, True, "info"),
        ],
    )
    def test_who_decides(self, run, ruleset_of, fake_rule, rules, problems, rulesets, strict, expected):
        problem = Problem(message="it is bad", severity=problems)
        rule = fake_rule(check=lambda _: [problem], severity=Severity(rules))
        report = run(ruleset_of(rule, strict=strict, severity=rulesets and Severity(rulesets)))
        assert [f.severity.value for f in report.findings] == [expected]

    @pytest.mark.parametrize(
        ("severity", "verdict"), [("error", Verdict.FAILED), ("warning", Verdict.PASSED), ("info", Verdict.PASSED)]
    )
    def test_only_errors_fail_a_run(self, run, ruleset_of, fake_rule, severity, verdict):
        rule = fake_rule(finds=["it is bad"], severity=Severity(severity))
        assert run(ruleset_of(rule)).verdict is verdict


class TestVerdict:
    def test_no_rule_at_all_is_no_pass(self, run, ruleset_of):
        report = run(ruleset_of())
        assert report.verdict is Verdict.UNKNOWN
        assert report.reason == "cannot tell whether it is safe to resume: no rule was selected"

    def test_nothing_but_skipped_rules_is_no_pass(self, run, ruleset_of, fake_rule):
        def check(_):
            raise FactUnavailable("there is none")

        report = run(ruleset_of(fake_rule(check=check)))
        assert report.reason == "cannot tell whether it is safe to resume: every selected rule was skipped"
        assert report.verdict is Verdict.UNKNOWN

    def test_a_damaged_file_that_no_finding_explains_is_no_pass(self, run, ruleset_of, fake_rule):
        def check(_):
            raise FactUnavailable("state.pt is damaged", path="state.pt", blocked=True)

        blocked, fine = fake_rule(check=check), fake_rule("acme/fine")
        report = run(ruleset_of(blocked, fine))
        assert (report.verdict, report.outcomes[0].blocked_by) == (Verdict.UNKNOWN, "state.pt")
        assert report.reason == "cannot tell whether it is safe to resume: state.pt is damaged"

    def test_a_damaged_file_that_a_finding_explains_fails(self, run, ruleset_of, fake_rule, problem):
        def check(_):
            raise FactUnavailable("state.pt is damaged", path="state.pt", blocked=True)

        report = run(
            ruleset_of(fake_rule(check=check), fake_rule("acme/damaged", lambda _: [problem(path="state.pt")]))
        )
        assert (report.verdict, report.counts.errors) == (Verdict.FAILED, 1)

    def test_a_missing_directory_is_nothing_to_resume_from(self, run, ruleset_of, fake_rule, tmp_path):
        report = run(ruleset_of(fake_rule(finds=["it is not there"])), tmp_path / "absent")
        assert (report.layout.name, report.reason) == ("none", "there is nothing to resume from: 1 error")

    def test_the_sentence_of_a_pass_says_where_training_starts(self, run, ruleset_of, fake_rule, plugins_of):
        rule = fake_rule(finds=["it is odd"], severity=Severity.WARNING)
        plugins = plugins_of(acme={"rules": [rule], "layouts": [Acme()]})
        report = run(ruleset_of(rule, plugins=plugins))
        assert report.resume == "epoch 3 starts"
        assert report.reason == "safe to resume, with 1 warning to look at; epoch 3 starts"

    def test_a_narrowed_run_does_not_claim_more_than_it_checked(self, run, ruleset_of, fake_rule, plugins_of):
        plugins = plugins_of(acme={"rules": [rule := fake_rule()], "layouts": [Acme()]})
        report = run(ruleset_of(rule, plugins=plugins, narrowed=True))
        assert report.reason == "nothing wrong in what the 1 selected rule checked"

    def test_counts(self, run, ruleset_of, fake_rule):
        def skip(_):
            raise FactUnavailable("none")

        def crash(_):
            raise ValueError

        counts = run(
            ruleset_of(
                fake_rule("acme/a", finds=["one", "two"]),
                fake_rule("acme/b", finds=["three"], severity=Severity.WARNING),
                fake_rule("acme/c", finds=["four"], severity=Severity.INFO),
                fake_rule("acme/d"),
                fake_rule("acme/e", check=skip),
                fake_rule("acme/f", check=crash),
                ignores=[Ignore("acme/a", "known", Origin("team.yaml", 9), path="elsewhere")],
            )
        ).counts
        assert counts.model_dump() == {
            "passed": 1, "failed": 3, "skipped": 1, "crashed": 1, "errors": 2, "warnings": 1, "infos": 1, "ignored": 0,
        }  # fmt: skip


class TestIgnores:
    ORIGIN = Origin("team.yaml", 9)

    def test_an_ignored_finding_is_kept_with_its_reason_and_does_not_count(self, run, ruleset_of, fake_rule, problem):
        rule = fake_rule(check=lambda _: [problem(path="legacy/a.pt")])
        report = run(ruleset_of(rule, ignores=[Ignore("acme/*", "from before", self.ORIGIN, path="legacy/**")]))
        (outcome,) = report.outcomes
        assert (outcome.status, outcome.findings[0].ignored) == (Status.PASSED, "from before")
        assert (report.counts.ignored, report.counts.errors, report.passed) == (1, 0, True)

    def test_one_that_silences_nothing_is_a_warning_and_in_strict_mode_fails(self, run, ruleset_of, fake_rule):
        ignores = [Ignore("acme/bad", "known", self.ORIGIN)]
        report = run(ruleset_of(fake_rule(), ignores=ignores))
        assert [(n.severity, n.message) for n in report.notices] == [
            (
                Severity.WARNING,
                "team.yaml:9: nothing was found that the ignore of acme/bad would silence; delete it",
            )
        ]
        assert report.passed
        strict = run(ruleset_of(fake_rule(), ignores=ignores, strict=True))
        assert (strict.notices[0].severity, strict.verdict) == (Severity.ERROR, Verdict.FAILED)

    def test_one_whose_rule_did_not_run_is_not_blamed(self, run, ruleset_of, fake_rule):
        def skip(_):
            raise FactUnavailable("none")

        ignores = [Ignore("acme/bad", "known", self.ORIGIN), Ignore("other/bad", "known", self.ORIGIN)]
        skipped = ruleset_of(fake_rule(check=skip), fake_rule("acme/fine"), ignores=ignores, strict=True)
        narrowed = ruleset_of(fake_rule("acme/fine"), ignores=ignores, strict=True, narrowed=True)
        assert run(skipped).notices == run(narrowed).notices == ()


class Acme(Layout):
    name = "acme"
    title = "acme checkpoints"

    def recognise(self, checkpoint):
        return Match(80, ("acme.json",))

    def progress(self, checkpoint):
        return Progress(epoch=2, complete=True, plan=ResumePlan("epoch 3 starts", epoch=3))


class TestLayouts:
    def layout(self, answer, name="broken"):
        class Broken(Acme):
            def recognise(self, checkpoint):
                return answer(checkpoint)

        layout = Broken()
        layout.name = name
        return layout

    def test_the_best_match_is_taken_and_its_signs_are_told(self, run, ruleset_of, fake_rule, plugins_of):
        faint = self.layout(lambda _: Match(3, ("a faint sign",)), name="aaa")
        plugins = plugins_of(acme={"rules": [rule := fake_rule()], "layouts": [Acme()]}, other={"layouts": [faint]})
        layout = run(ruleset_of(rule, plugins=plugins)).layout
        assert (layout.name, layout.title, layout.signs) == ("acme", "acme checkpoints", ("acme.json",))

    @pytest.mark.parametrize(
        ("answer", "crash"),
        [
            (lambda _: 1 / 0, "ZeroDivisionError: division by zero"),
            (lambda _: sys.exit(0), "SystemExit: 0"),
            (lambda _: True, "TypeError: recognise returned True; it must return a Match or None"),
        ],
        ids=["raises", "exits", "rubbish"],
    )
    def test_one_that_misbehaves_is_passed_over_and_the_run_is_no_pass(
        self, run, ruleset_of, fake_rule, plugins_of, answer, crash
    ):
        layouts = [self.layout(answer), Acme()]
        report = run(ruleset_of(rule := fake_rule(), plugins=plugins_of(acme={"rules": [rule], "layouts": layouts})))
        (notice,) = report.notices
        assert notice.message == f"the layout broken of acme (ckpt-rules-acme 1.2) crashed: {crash}"
        assert (notice.fatal, report.layout.name, report.verdict) == (True, "acme", Verdict.UNKNOWN)

    def test_one_that_misses_a_fact_does_not_recognise_the_directory(self, tmp_path, plugins_of):
        def answer(checkpoint):
            return checkpoint.files.sniff("absent.pt")

        checkpoint, notices = open_checkpoint(
            LocalStorage(tmp_path), plugins_of(acme={"layouts": [self.layout(answer)]})
        )
        assert (checkpoint.layout.name, notices) == ("files", [])


class TestObservers:
    def test_they_see_the_run_in_order(self, run, ruleset_of, fake_rule, plugins_of):
        seen = []
        plugins = plugins_of(
            acme={
                "rules": [rule := fake_rule()],
                "layouts": [Acme()],
                "run_started": lambda checkpoint, rules: seen.append([r.id for r in rules]),
                "rule_finished": lambda outcome: seen.append(outcome.status.value),
                "run_finished": lambda report: seen.append(report.verdict.value),
            }
        )
        run(ruleset_of(rule, plugins=plugins))
        assert seen == [["acme/bad"], "passed", "passed"]

    @pytest.mark.parametrize("hook", ["run_started", "rule_finished", "run_finished"])
    @pytest.mark.parametrize("how", [lambda: 1 / 0, lambda: sys.exit(0)], ids=["raises", "exits"])
    def test_one_that_misbehaves_is_named_once_and_the_others_are_told(
        self, run, ruleset_of, fake_rule, plugins_of, hook, how
    ):
        seen = []
        rules = [fake_rule("acme/a"), fake_rule("acme/b")]
        plugins = plugins_of(
            acme={"rules": rules, "layouts": [Acme()]}, bad={hook: how}, good={hook: lambda: seen.append(hook)}
        )
        report = run(ruleset_of(*rules, plugins=plugins))
        (notice,) = report.notices
        assert notice.message.startswith(f"the plugin bad crashed in ckpt_rules_{hook}: ")
        assert (notice.fatal, report.verdict) == (True, Verdict.UNKNOWN)
        assert len(seen) == (2 if hook == "rule_finished" else 1)

    def test_a_plugin_that_did_not_load_is_no_pass(self, run, ruleset_of, fake_rule, plugins_of):
        plugins = plugins_of(acme={"rules": [rule := fake_rule()], "layouts": [Acme()]}, bad={"rules": lambda: 1 / 0})
        report = run(ruleset_of(rule, plugins=plugins))
        assert [n.message for n in report.notices] == [
            "the plugin bad (ckpt-rules-bad 1.2) could not be loaded: ZeroDivisionError: division by zero"
        ]
        assert (report.verdict, report.reason) == (
            Verdict.UNKNOWN,
            "cannot tell whether it is safe to resume: a plugin failed",
        )


class TestReportAsJson:
    def test_what_comes_from_a_checkpoint_is_always_valid_json(self, run, ruleset_of, fake_rule):
        data = {
            "nan": float("nan"),
            "huge": 1 << 9999,
            "bytes": b"x",
            "set": {2, 1},
            3: "\udcff",
            "nested": [(1, {"a": object})],
        }
        problem = Problem(message="in \udcff", place=Place(path="\udcff.pt", key="k\x1b"), data=data)
        report = run(ruleset_of(fake_rule(check=lambda _: [problem])))
        parsed = json.loads(report.model_dump_json().encode("utf-8"))
        finding = parsed["outcomes"][0]["findings"][0]
        assert (finding["message"], finding["place"]["path"]) == (r"in \udcff", r"\udcff.pt")
        assert finding["data"] == {
            "nan": "nan", "huge": "an integer of 10,000 bits", "bytes": "b'x'", "set": [1, 2], "3": r"\udcff",
            "nested": [[1, {"a": "<class 'object'>"}]],
        }  # fmt: skip
        assert report.findings[0].place.path == "\udcff.pt"

    def test_notices_of_the_ruleset_are_kept(self, run, ruleset_of, fake_rule):
        notice = Notice(severity=Severity.WARNING, message="team.yaml:4: it expired")
        assert run(ruleset_of(fake_rule(), notices=[notice])).notices == (notice,)
