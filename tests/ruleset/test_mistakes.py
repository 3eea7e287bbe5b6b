"""Every mistake that a ruleset file can hold: one message, with file, line and column."""

from __future__ import annotations

import os
import socket
from datetime import date
from textwrap import dedent

import pytest

from ckpt_rules import RulesetError
from ckpt_rules.ruleset import document

TODAY = date(2027, 1, 15)

KEYS = "description, extends, requires, plugins, select, exclude, rules, limits, purpose, layout, strict and ignore"
ALL = "'ckpt-rules rules' lists them all"
LEVELS = "error, warning, info or off"
RULESETS = "there are ci, deep, default, inference, publish and quick, and paths such as ./team.yaml"

TABLE = [
    # nothing to read
    ("", "team.yaml: the file is empty; a ruleset says at least `extends: [default]`"),
    ("# only a comment\n", "team.yaml: the file is empty; a ruleset says at least `extends: [default]`"),
    ("null\n", "team.yaml:1:1: the file is empty; a ruleset says at least `extends: [default]`"),
    ("{}\n", "team.yaml: it selects no rule; write `extends: [default]`, or name rules under select"),
    ("description: Ours\n", "team.yaml: it selects no rule; write `extends: [default]`, or name rules under select"),
    (
        "rules: {acme/missing: off}",
        "team.yaml: it selects no rule; write `extends: [default]`, or name rules under select",
    ),
    ("- acme/missing\n", "team.yaml:1:1: a ruleset is a mapping with keys such as extends and select, not a list"),
    (
        "acme/missing\n",
        "team.yaml:1:1: a ruleset is a mapping with keys such as extends and select, not 'acme/missing'",
    ),
    # YAML
    (
        "select: [acme/missing\n",
        (
            "team.yaml:2:1: this is not YAML: did not find expected ',' or ']' "
            "while parsing a flow sequence that begins in line 1"
        ),
    ),
    (
        "description: what: we ask\n",
        (
            "team.yaml:1:18: this is not YAML: mapping values are not allowed in this context; "
            "either the line is indented wrongly, or a text that holds `: ` needs quotes"
        ),
    ),
    (
        "select:\n\t- acme/missing\n",
        (
            "team.yaml:2:1: this is not YAML: found character that cannot start any token while scanning for the next token "
            "that begins in line 2; put a text that begins with this character in quotes; indent with spaces, not tabs"
        ),
    ),
    (
        "select:\n  - */missing\n",
        (
            "team.yaml:2:6: this is not YAML: did not find expected alphabetic or numeric character while scanning an alias "
            'that begins in line 2; `*` begins an alias in YAML, so put a glob in quotes: "*/missing"'
        ),
    ),
    (
        "select: [*missing]\n",
        'team.yaml:1:10: the alias *missing is refused; write the value out, or put a glob in quotes: "*missing"',
    ),
    ("select: &all [acme/missing]\n", "team.yaml:1:9: the anchor &all is refused; write the value out each time"),
    ("select: !globs [acme/missing]\n", "team.yaml:1:9: the tag !globs is refused; types follow from the keys"),
    ("select: !!set [acme/missing]\n", "team.yaml:1:9: the tag !!set is refused; types follow from the keys"),
    (
        "select: [acme/missing]\nselect: [house/missing]\n",
        "team.yaml:2:1: the key 'select' is here a second time; it is in line 1 already",
    ),
    (
        "select: [acme/missing]\n---\nstrict: true\n",
        "team.yaml:2:1: a second document begins here; a ruleset is one document, so delete this `---`",
    ),
    ("? [acme/missing]\n: error\n", "team.yaml:1:3: a key must be plain text; is a brace or a colon too many?"),
    ("select: " + "[" * 16, "team.yaml:1:24: this is nested 17 levels deep; at most 16 are read"),
    ("description: \a\n", "team.yaml:1:14: this is not YAML: control characters are not allowed"),
    (b"select:\n  - acme/m\xfcller\n", "team.yaml:2:11: the byte 0xfc is not UTF-8; save the file as UTF-8"),
    ("select: [acme/missing]\n".encode("utf-16"), "team.yaml:1:1: the byte 0xff is not UTF-8; save the file as UTF-8"),
    ("#" * (1 << 18) + "\n", "team.yaml: the file is larger than 262,144 bytes, which no ruleset needs"),
    # keys and types
    (
        "selct: [acme/missing]\n",
        f"team.yaml:1:1: unknown key 'selct' (did you mean 'select'?); a ruleset has {KEYS}",
    ),
    ("<<: {}\n", f"team.yaml:1:1: unknown key '<<'; a ruleset has {KEYS}"),
    (
        "select: [acme/missing]\nlimits: {memry: 4}\n",
        (
            "team.yaml:2:10: unknown key 'memry' (did you mean 'memory'?); a mapping of limits has memory, structure, "
            "metadata, opcodes, values, levels, marks, memo_gap, odd_keys, key_parts, key_bits, enclosed, parts, nesting, depth, entries, seconds and outside_links"
        ),
    ),
    (
        "select: [acme/missing]\nlimits: {memory: lots}\n",
        "team.yaml:2:18: memory is 'lots'; a whole number, 1 or more is expected",
    ),
    (
        "select: [acme/missing]\nlimits: {levels: 301}\n",
        "team.yaml:2:18: levels is '301'; a whole number, 1 to 300 is expected",
    ),
    (
        "select: [acme/missing]\nlimits: {outside_links: 7}\n",
        "team.yaml:2:25: outside_links is '7'; true or false is expected",
    ),
    (
        "select: [acme/missing]\nlimits: 400\n",
        "team.yaml:2:9: limits is '400'; a mapping such as {memory: 400} is expected",
    ),
    ("select: acme/missing\n", "team.yaml:1:9: select is 'acme/missing'; a list such as [\"files/*\"] is expected"),
    ("extends: default\n", "team.yaml:1:10: extends is 'default'; a list such as [default] is expected"),
    ("exclude:\n", 'team.yaml:1:1: exclude has no value; a list such as ["scaler/*"] is expected, or leave it out'),
    ("select: [{acme/missing: error}]\n", "team.yaml:1:10: an entry of select is a mapping; text is expected"),
    ("select: [' ']\n", "team.yaml:1:10: an entry of select is empty; text is expected"),
    ("description: [a, b]\n", "team.yaml:1:14: description is a list; text is expected"),
    ("strict: very\n", "team.yaml:1:9: strict is 'very'; true or false is expected"),
    ("strict: ~\n", "team.yaml:1:1: strict has no value; true or false is expected, or leave it out"),
    # rules
    (
        "select: [acme/mising]\n",
        f"team.yaml:1:10: there is no rule 'acme/mising' (did you mean 'acme/missing'?); {ALL}",
    ),
    ("select: ['acm/*']\n", f"team.yaml:1:10: no rule matches 'acm/*' (did you mean 'acme/*'?); {ALL}"),
    ("exclude: ['*/*/*']\n", f"team.yaml:1:11: no rule matches '*/*/*'; {ALL}"),
    ("select: [acme]\n", f"team.yaml:1:10: there is no rule 'acme' (did you mean 'acme/*'?); {ALL}"),
    ("select: [no_fp32]\n", f"team.yaml:1:10: there is no rule 'no_fp32' (did you mean 'acme/no-fp32'?); {ALL}"),
    ("select: [numerics]\n", f"team.yaml:1:10: there is no rule 'numerics' (did you mean 'tag:numerics'?); {ALL}"),
    (
        "select: ['tag:numeric']\n",
        (
            "team.yaml:1:10: no rule has the tag 'numeric' (did you mean 'tag:numerics'?); "
            "there are tag:numerics and tag:resume"
        ),
    ),
    ("rules: [acme/missing]\n", "team.yaml:1:8: rules is a list; a mapping from rule ids is expected"),
    (
        "rules:\n  acme/step-drit: error\n",
        f"team.yaml:2:3: there is no rule 'acme/step-drit' (did you mean 'acme/step-drift'?); {ALL}",
    ),
    (
        "rules:\n  missing: error\n",
        f"team.yaml:2:3: there is no rule 'missing' (did you mean 'acme/missing' or 'house/missing'?); {ALL}",
    ),
    (
        "rules:\n  'acme/*': error\n",
        "team.yaml:2:3: 'acme/*' is not an id of a rule; globs and tags belong under select or exclude",
    ),
    (
        "rules:\n  acme/drift: error\n  acme/step-drift: error\n",
        "team.yaml:3:3: 'acme/step-drift' and 'acme/drift' are one rule; keep one of them",
    ),
    (
        "rules:\n  acme/missing: eror\n",
        "team.yaml:2:17: unknown severity 'eror' (did you mean 'error'?); there are error, warning, info and off",
    ),
    (
        "rules:\n  acme/missing: {severity: 2}\n",
        "team.yaml:2:28: unknown severity '2'; there are error, warning, info and off",
    ),
    (
        "rules:\n  acme/missing:\n",
        (
            f"team.yaml:2:3: acme/missing has no value; {LEVELS}, or a mapping with severity and options is expected, "
            "or leave it out"
        ),
    ),
    (
        "rules:\n  acme/missing: [error, {}]\n",
        f"team.yaml:2:17: acme/missing is a list; {LEVELS}, or a mapping with severity and options is expected",
    ),
    (
        "rules:\n  acme/missing:\n    severity:\n",
        f"team.yaml:3:5: severity has no value; {LEVELS} is expected, or leave it out",
    ),
    (
        "rules:\n  acme/missing: {severty: error}\n",
        "team.yaml:2:18: unknown key 'severty' (did you mean 'severity'?); a rule has severity and options",
    ),
    # options
    (
        "rules:\n  acme/step-drift: {options: [20]}\n",
        "team.yaml:2:30: options is a list; a mapping of options is expected",
    ),
    (
        "rules:\n  acme/step-drift:\n    options: {tolerence: 20}\n",
        (
            "team.yaml:3:15: acme/step-drift has no option 'tolerence' (did you mean 'tolerance'?); "
            "it has tolerance, ratio, mode and names"
        ),
    ),
    (
        "rules:\n  acme/missing: {options: {tolerance: 20}}\n",
        "team.yaml:2:28: acme/missing has no option 'tolerance'; it takes none",
    ),
    (
        "rules:\n  acme/step-drift:\n    options: {tolerance: many}\n",
        "team.yaml:3:26: the option tolerance of acme/step-drift should be an integer, not 'many'",
    ),
    (
        "rules:\n  acme/step-drift:\n    options: {tolerance: -1}\n",
        "team.yaml:3:26: the option tolerance of acme/step-drift should be greater than or equal to 0, not '-1'",
    ),
    (
        "rules:\n  acme/step-drift:\n    options: {tolerance: null}\n",
        "team.yaml:3:15: the option tolerance of acme/step-drift should be an integer, not nothing",
    ),
    (
        "rules:\n  acme/step-drift:\n    options: {mode: median}\n",
        "team.yaml:3:21: the option mode of acme/step-drift should be 'sum' or 'mean', not 'median'",
    ),
    (
        "rules:\n  acme/step-drift:\n    options:\n      names:\n        - lr\n        - [betas]\n",
        "team.yaml:6:11: the option names[1] of acme/step-drift should be text, not a list",
    ),
    (
        "rules:\n  acme/step-drift: {options: {names: lr}}\n",
        "team.yaml:2:38: the option names of acme/step-drift should be a list, not 'lr'",
    ),
    (
        "select: [acme/*]\n",
        "team.yaml:1:10: the option limit of acme/needs-limit is missing; it has no default, so set it under rules",
    ),
    (
        "rules:\n  acme/needs-limit: warning\n",
        "team.yaml:2:3: the option limit of acme/needs-limit is missing; it has no default, so set it under rules",
    ),
    # other rulesets
    (
        "extends: [defualt]\n",
        f"team.yaml:1:11: there is no ruleset 'defualt' (did you mean 'default'?); {RULESETS}",
    ),
    ("extends: [acme:house]\n", f"team.yaml:1:11: there is no ruleset 'acme:house'; {RULESETS}"),
    ("extends: [./bases.yaml]\n", "team.yaml:1:11: there is no file 'bases.yaml' (did you mean 'base.yaml'?)"),
    ("extends: [../nowhere/base.yaml]\n", "'../nowhere' that can be listed"),
    ("extends: [sub/]\n", "team.yaml:1:11: 'sub' is a directory, not a YAML file"),
    ('extends: ["a\\0.yaml"]\n', "team.yaml:1:11: 'a\\x00.yaml' is not a path: it holds a NUL character"),
    ("extends: [team.yaml]\n", "team.yaml:1:11: extends goes in a circle: team.yaml:1 -> team.yaml"),
    # what must be installed
    (
        "requires: [ckpt-rules-hause]\n",
        (
            "team.yaml:1:12: 'ckpt-rules-hause' is required, but ckpt-rules-hause is not installed "
            "(did you mean 'ckpt-rules-house'?); run pip install 'ckpt-rules-hause'"
        ),
    ),
    (
        "requires:\n  - pluggy>=999\n",
        "team.yaml:2:5: 'pluggy>=999' is required, but version {pluggy} is installed; run pip install 'pluggy>=999'",
    ),
    (
        "requires: ['pluggy=1']\n",
        "team.yaml:1:12: 'pluggy=1' is not a requirement; it reads like 'ckpt-rules-acme>=1.2'",
    ),
    # local plugins
    ("plugins: [./our_rule.py]\n", "team.yaml:1:11: there is no file 'our_rule.py' (did you mean 'our_rules.py'?)"),
    ("plugins: [sub.py]\n", "team.yaml:1:11: 'sub.py' is not a regular file"),
    (
        "plugins: [acme]\n",
        "team.yaml:1:11: 'acme' is an installed plugin and needs no mention; plugins takes Python files",
    ),
    (
        "plugins: [acm]\n",
        "team.yaml:1:11: 'acm' is not Python file such as ./our_rules.py; to demand an installed plugin, write requires",
    ),
    # ignores
    ("ignore: [{rule: acme/missing}]\n", "team.yaml:1:10: reason is missing: say why these findings are acceptable"),
    ("ignore: [{reason: known}]\n", "team.yaml:1:10: rule is missing"),
    ("ignore: [{rule: acme/missing, reason: ''}]\n", "team.yaml:1:39: reason is empty; text is expected"),
    (
        "ignore: [acme/missing]\n",
        "team.yaml:1:10: an entry of ignore is 'acme/missing'; a mapping with rule and reason is expected",
    ),
    (
        "ignore: {rule: acme/missing, reason: known}\n",
        (
            "team.yaml:1:9: ignore is a mapping; a list such as "
            "[{rule: rng/missing, reason: saved before we kept RNG state}] is expected"
        ),
    ),
    (
        "ignore: [{rule: acme/missing, reason: known, pth: x}]\n",
        "team.yaml:1:46: unknown key 'pth' (did you mean 'path'?); an ignore has rule, path, tensor, reason and expires",
    ),
    (
        "ignore: [{rule: acme/missing, reason: known, expires: soon}]\n",
        "team.yaml:1:55: expires is 'soon'; a day such as 2027-06-30 is expected",
    ),
    (
        "ignore: [{rule: acme/missing, reason: known, expires: 2027-06-31}]\n",
        "team.yaml:1:55: expires is '2027-06-31'; a day such as 2027-06-30 is expected",
    ),
    (
        "ignore: [{rule: acme/missing, reason: known, expires: }]\n",
        "team.yaml:1:46: expires has no value; a day such as 2027-06-30 is expected, or leave it out",
    ),
    (
        "ignore: [{rule: acme/mising, reason: known}]\n",
        f"team.yaml:1:17: there is no rule 'acme/mising' (did you mean 'acme/missing'?); {ALL}",
    ),
    (
        "ignore: [{rule: 'tag:resume', reason: known}]\n",
        "team.yaml:1:17: an ignore takes a rule's id or a glob of ids, not 'tag:resume'",
    ),
]


@pytest.mark.parametrize(("text", "message"), TABLE, ids=[f"{i}: {str(t)[:40]!r}" for i, (t, _) in enumerate(TABLE)])
def test_a_mistake_is_one_message_in_its_place(resolved, write, text, message):
    from importlib.metadata import version

    write("base.yaml", "select: [acme/missing]\n")
    write("our_rules.py", "")
    write("sub/x", "")
    write("sub.py/x", "")
    with pytest.raises(RulesetError) as error:
        resolved(text)
    message = message.replace("{pluggy}", version("pluggy"))
    assert len(error.value.problems) == 1
    assert str(error.value).endswith(message) if not message.startswith("team.yaml") else str(error.value) == message


def test_all_mistakes_are_told_at_once_sorted_by_file_and_line(resolved, write):
    write("base.yaml", "rules:\n  acme/missing: fatal\nexclude: [acme/no-fp31]\n")
    text = """
        strict: maybe
        extends: [./base.yaml, deflt]
        select: &s [acme/missing, '*/nothing']
        requires: [ckpt-rules-none]
        plugins: [./none.py]
        rules:
          acme/step-drift: {options: {tolerance: x, toleranz: 1}}
          acme/no-fp32: warn
        ignore:
          - rule: acme/missing
          - rule: acme/mssing
            reason: known
        colour: blue
    """
    with pytest.raises(RulesetError) as error:
        resolved(text)
    places = [(p.file, p.line, p.column) for p in error.value.problems]
    assert places == [
        ("base.yaml", 2, 17),
        ("base.yaml", 3, 11),
        ("team.yaml", 1, 9),
        ("team.yaml", 2, 24),
        ("team.yaml", 3, 9),
        ("team.yaml", 4, 12),
        ("team.yaml", 5, 11),
        ("team.yaml", 7, 42),
        ("team.yaml", 7, 45),
        ("team.yaml", 8, 17),
        ("team.yaml", 10, 5),
        ("team.yaml", 11, 11),
        ("team.yaml", 13, 1),
    ]


def test_reading_stops_at_a_hundred_mistakes(resolved):
    with pytest.raises(RulesetError) as error:
        resolved("select:\n" + "  - no/such\n" * 5000)
    assert len(error.value.problems) == 101
    assert str(error.value.problems[0]) == "team.yaml: there may be more, but reading stopped at 100 mistakes"


def test_rules_of_a_file_that_could_not_be_read_are_not_called_unknown(resolved):
    with pytest.raises(RulesetError) as error:
        resolved("plugins: [./ours.py]\nselect: ['ours/*', acme/mising]\nrules: {ours/thing: error}\n")
    assert [(p.line, p.column) for p in error.value.problems] == [(1, 11), (2, 20)]


@pytest.fixture
def kinds(folder):
    """Things that are not regular file, by name."""
    os.mkfifo(folder / "fifo.yaml")
    (folder / "dir.yaml").mkdir()
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "broken.yaml").symlink_to("nothing")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("sock.yaml")
    (folder / "null.yaml").symlink_to("/dev/null")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fifo.yaml", "fifo.yaml: 'fifo.yaml' is not a regular file"),
        ("dir.yaml", "dir.yaml: 'dir.yaml' is a directory, not a YAML file"),
        ("loop.yaml", "loop.yaml: 'loop.yaml' can't be read: Too many levels of symbolic links"),
        ("sock.yaml", "sock.yaml: 'sock.yaml' is not a regular file"),
        ("null.yaml", "null.yaml: 'null.yaml' is not a regular file"),
        ("tame.yaml", "tame.yaml: there is no file 'tame.yaml' (did you mean 'team.yaml'?)"),
        ("a\0.yaml", "a\0.yaml: 'a\\x00.yaml' is not a path: it holds a NUL character"),
    ],
)
def test_a_ruleset_that_is_no_file_is_one_message(kinds, plugins, write, name, message):
    from ckpt_rules.ruleset import resolve

    write("team.yaml", "")
    with pytest.raises(RulesetError) as error:
        resolve(name, plugins, today=TODAY)
    assert str(error.value) == message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_one_message(resolved, write):
    write("base.yaml", "").chmod(0)
    with pytest.raises(RulesetError, match=r"team.yaml:1:11: 'base.yaml' can't be read: Permission denied"):
        resolved("extends: [./base.yaml]\n")


@pytest.mark.parametrize(("text", "message"), [(t, m) for t, m in TABLE if "not YAML" not in m])
def test_the_same_is_said_where_libyaml_is_absent(resolved, write, monkeypatch, text, message):
    import yaml

    monkeypatch.delattr(yaml, "CBaseLoader")
    test_a_mistake_is_one_message_in_its_place(resolved, write, text, message)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [("select: [*/missing]\n", 1, 11), ("a: b: c\n", 1, 5), ("description: ä\a\n", 1, 15), ("a:\n\tb: 1\n", 2, 1)],
)
@pytest.mark.parametrize("loader", ["CBaseLoader", "BaseLoader"])
def test_both_parsers_find_the_place_of_what_is_not_yaml(resolved, monkeypatch, loader, text, line, column):
    import yaml

    monkeypatch.setattr(yaml, "CBaseLoader", getattr(yaml, loader))
    with pytest.raises(RulesetError, match="this is not YAML") as error:
        resolved(text)
    assert [(p.line, p.column) for p in error.value.problems] == [(line, column)]


def test_a_hundred_thousand_brackets_are_one_message(resolved):
    for text in ("[" * 100_000, "{a: " * 50_000, "- " * 100_000, "a: " + "[" * 10_000 + "]" * 10_000):
        with pytest.raises(RulesetError) as error:
            resolved(text)
        assert len(error.value.problems) == 1


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistakes(resolved):
    ruleset = resolved(b"\xef\xbb\xbfselect:\r\n  - acme/missing\r\n")
    assert [(s.rule.id, s.selected_by.line) for s in ruleset.rules] == [("acme/missing", 2)]


def test_depth_is_bounded_below_what_recursion_can_bear():
    assert document.MAX_DEPTH < 100


def test_texts_of_the_table_are_distinct():
    assert len({dedent(t) if isinstance(t, str) else t for t, _ in TABLE}) == len(TABLE)
