"""`run_rule`, and assertions that explain themselves when they fail."""

from __future__ import annotations

import re

import pytest

from ckpt_rules import FactUnavailable, Layout, Match, Place, Problem, Reads, Severity, Status
from ckpt_rules.testing import build_plain_torch, run_rule


@pytest.fixture
def ck(tmp_path):
    return build_plain_torch(tmp_path / "ck")


@pytest.fixture
def finds(fake_rule, ck):
    """The result of a rule that finds the given problems."""

    def make(*problems, strict=False):
        return run_rule(fake_rule(check=lambda checkpoint: problems)(), ck, strict=strict)

    return make


BAD = Problem(
    message="1,234 bytes are bad",
    place=Place(path="model.safetensors", tensor="lm_head.weight", key="shape", offset=8),
    help="save it again",
    severity=Severity.WARNING,
    data={"nbytes": 1234, "kind": "bad"},
)


def failure(assertion, *args, **kwargs) -> str:
    with pytest.raises(AssertionError) as raised:
        assertion(*args, **kwargs)
    return str(raised.value)


class TestWhatIsRead:
    @pytest.mark.parametrize("reads", [Reads.HEADERS, Reads.BYTES])
    def test_a_rule_may_open_files(self, fake_rule, ck, reads):
        rule = fake_rule(check=lambda checkpoint: [checkpoint.files.safetensors("model.safetensors")][:0], reads=reads)
        run_rule(rule(), ck).assert_passed()

    def test_one_that_declares_the_listing_may_not(self, fake_rule, ck):
        check = lambda checkpoint: [checkpoint.files.safetensors("model.safetensors")][:0]  # noqa: E731
        rule = fake_rule(check=check, reads=Reads.LISTING)
        said = failure(run_rule, rule(), ck)
        assert said == "acme/bad opens model.safetensors; its `reads` must be HEADERS, not LISTING"

    def test_not_even_before_it_misses_a_fact(self, fake_rule, ck):
        def check(checkpoint):
            yield BAD
            checkpoint.files.safetensors("model.safetensors")
            raise FactUnavailable("there is no scheduler")

        assert "opens model.safetensors" in failure(run_rule, fake_rule(check=check, reads=Reads.LISTING)(), ck)

    def test_it_may_look_at_names_and_sizes(self, fake_rule, ck):
        rule = fake_rule(check=lambda checkpoint: [e for e in checkpoint.listing if e.size < 0], reads=Reads.LISTING)
        run_rule(rule(), ck).assert_passed()

    def test_one_for_other_layouts_is_not_asked(self, fake_rule, ck):
        def check(checkpoint):
            checkpoint.files.safetensors("model.safetensors")
            return []

        rule = fake_rule(check=check, reads=Reads.LISTING, applies_to=frozenset({"orbax"}))
        run_rule(rule(), ck).assert_skipped("for the layout orbax alone")


class TestAssertOne:
    def test_all_parts_of_a_finding_can_be_asked_for(self, finds):
        finding = finds(BAD).assert_one(
            path="model.safetensors",
            tensor="lm_head.weight",
            key="shape",
            offset=8,
            message="1,234 bytes",
            help="again",
            severity="warning",
            data={"nbytes": 1234},
        )
        assert finding.rule == "acme/bad"

    @pytest.mark.parametrize(
        ("wanted", "difference"),
        [
            ({"path": "config.json"}, "path is 'model.safetensors', not 'config.json'"),
            ({"tensor": "x"}, "tensor is 'lm_head.weight', not 'x'"),
            ({"offset": 9}, "offset is 8, not 9"),
            ({"message": "4,321"}, "the message does not hold '4,321'"),
            ({"help": "delete"}, "the help does not hold 'delete'"),
            ({"severity": "error"}, "severity is <Severity.WARNING: 'warning'>, not 'error'"),
            ({"data": {"nbytes": 1}}, "data['nbytes'] is 1234, not 1"),
            ({"data": {"count": 1}}, "data['count'] is 'absent', not 1"),
        ],
        ids=str,
    )
    def test_the_part_that_differs_is_named_and_the_finding_shown(self, finds, wanted, difference):
        text = failure(finds(BAD).assert_one, **wanted)
        assert f"it differs: {difference}" in text
        assert "1. warning: 1,234 bytes are bad (model.safetensors, tensor lm_head.weight, key shape, byte 8)" in text
        assert "help: save it again" in text

    def test_two_findings_are_not_one(self, finds):
        text = failure(finds(BAD, Problem(message="another")).assert_one, message="another")
        assert "expected exactly one finding of acme/bad with message='another'" in text
        assert "findings: 2" in text
        assert "2. error: another (.)" in text

    def test_none_at_all(self, finds):
        assert "findings: none" in failure(finds().assert_one)

    def test_strict_makes_warnings_errors(self, finds):
        finds(BAD, strict=True).assert_one(severity=Severity.ERROR)


def test_assert_some_finds_one_among_several(finds):
    result = finds(Problem(message="one"), BAD, Problem(message="two"))
    assert result.assert_some(path="model.safetensors").message == BAD.message
    assert "expected a finding of acme/bad with path='config.json'" in failure(result.assert_some, path="config.json")


class TestPassedAndSkipped:
    def test_a_rule_that_finds_nothing_passed(self, finds):
        finds().assert_passed()
        assert finds().status is Status.PASSED

    def test_a_skipped_rule_did_not_pass(self, ck, fake_rule):
        def check(checkpoint):
            raise FactUnavailable("weights.bin is damaged", path="weights.bin", blocked=True)

        result = run_rule(fake_rule(check=check)(), ck)
        result.assert_skipped("is damaged", blocked_by="weights.bin")
        assert result.reason == "weights.bin is damaged"
        assert "status: skipped: weights.bin is damaged, blocked by weights.bin" in failure(result.assert_passed)
        assert "because of 'absent'" in failure(result.assert_skipped, "absent")
        failure(result.assert_skipped, blocked_by="config.json")

    def test_a_crash_shows_its_traceback(self, ck, fake_rule):
        text = failure(run_rule(fake_rule(check=lambda checkpoint: 1 / 0)(), ck).assert_passed)
        assert "status: crashed" in text
        assert re.search(r"lambda checkpoint: 1 / 0[\s\S]*ZeroDivisionError: division by zero", text)


class Own(Layout):
    name = "own"
    title = "our own checkpoint"

    def recognise(self, checkpoint):
        return Match(100, ("own.json",)) if checkpoint.listing.has_file("own.json") else None


class Crashing(Own):
    name = "crashing"

    def recognise(self, checkpoint):
        raise ValueError("a mistake in the layout")


def test_a_layout_that_is_not_installed_can_be_given(ck, fake_rule):
    rule = fake_rule(check=lambda checkpoint: [Problem(message=checkpoint.layout.name)])()
    run_rule(rule, ck, layouts=[Own()]).assert_one(message="plain-torch")
    run_rule(rule, ck.write_json("own.json", {}), layouts=[Own()]).assert_one(message="own")


def test_a_layout_that_crashes_fails_the_test_though_the_rule_passed(finds, ck, fake_rule):
    result = run_rule(fake_rule()(), ck, layouts=[Crashing()])
    assert result.status is Status.PASSED
    assert "a mistake in the layout" in failure(result.assert_passed)


def test_options_are_those_of_the_instance(ck, fake_rule):
    result = run_rule(fake_rule("acme/bad", finds=["it is bad"])(), str(ck.path))
    assert result.report.outcomes[0].plugin == "acme"
