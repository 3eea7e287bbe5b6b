"""Facts are open: a plugin brings one, layouts answer it, rules ask for it; what can't be remembered is refused."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from ckpt_rules import (
    REQUIREMENTS,
    WEIGHTS,
    Checkpoint,
    Fact,
    FactUnavailable,
    Layout,
    LayoutTraits,
    Match,
    Weights,
    checkpoint_at,
)
from ckpt_rules.cli import main
from ckpt_rules.errors import LayoutFault, PluginError
from ckpt_rules.plugin import import_file
from ckpt_rules.storage import LocalStorage


@dataclass(frozen=True)
class Tokenizer:
    vocabulary: int


TOKENIZER = Fact("tokenizer", Tokenizer, "the tokenizer")


def two_words(checkpoint):
    return Tokenizer(len(checkpoint.files.text("words.txt").split()))


class Ours(Layout):
    name, title = "ours", "ours"
    answers: ClassVar[dict[Any, Any]] = {TOKENIZER: two_words}

    def recognise(self, checkpoint):
        return Match(90, ("words.txt",)) if checkpoint.listing.has_file("words.txt") else None


@pytest.fixture
def saved(tmp_path):
    (tmp_path / "words.txt").write_text("a b\n")
    return tmp_path


def test_a_layout_answers_a_fact_that_a_plugin_brings(saved):
    checkpoint = checkpoint_at(saved, [Ours()])
    assert checkpoint[TOKENIZER] == Tokenizer(2)
    assert checkpoint[TOKENIZER] is checkpoint[TOKENIZER]


def test_a_layout_that_does_not_answer_it(saved):
    other = type("Other", (Ours,), {"answers": {}, "name": "other"})()
    plain = checkpoint_at(saved)
    assert checkpoint_at(saved, [other])[TOKENIZER] == Tokenizer(2)  # what a base class answers, its subclasses do
    with pytest.raises(FactUnavailable, match="the layout files has no tokenizer"):
        plain[TOKENIZER]


def test_the_default_answers_where_no_layout_does(saved):
    fact = Fact("entries", int, "the number of entries", default=lambda checkpoint: len(list(checkpoint.listing)))
    assert checkpoint_at(saved)[fact] == 1


def test_answers_come_before_methods_of_base_classes_and_after_those_of_subclasses(saved):
    none = Weights(())

    class Answering(Ours):
        answers: ClassVar[dict[Any, Any]] = {WEIGHTS: lambda _: none}

    class Again(Answering):
        def weights(self, checkpoint):
            return Weights(())

    assert checkpoint_at(saved, [Answering()]).weights is none
    assert checkpoint_at(saved, [Again()]).weights is not none


def test_an_attribute_is_the_fact(saved):
    checkpoint = checkpoint_at(saved)
    assert Checkpoint.weights is WEIGHTS
    assert checkpoint.requirements is checkpoint[REQUIREMENTS]


def test_a_checkpoint_is_files_facts_and_a_layout(saved):
    known = {
        name
        for name in vars(Checkpoint)
        if not name.startswith("_") and not isinstance(getattr(Checkpoint, name), Fact)
    }
    assert known == {"fact", "path", "listing", "previous", "mark", "forget_since"}
    assert isinstance(checkpoint_at(saved).layout, LayoutTraits)


def test_a_checkpoint_of_no_layout_answers_nothing(saved):
    with pytest.raises(FactUnavailable, match="no layout was asked for the tokenizer"):
        Checkpoint(LocalStorage(saved))[TOKENIZER]


@pytest.mark.parametrize("compute", [lambda _: 1, functools.partial(two_words)])
def test_what_is_another_function_each_time_is_refused(saved, compute):
    with pytest.raises(TypeError, match="another one each time; define it in a module"):
        checkpoint_at(saved).fact(compute)


def test_arguments_that_are_no_keys_are_refused(saved):
    with pytest.raises(TypeError, match=r"fact\(\) can't remember by \(\['x'\],\)"):
        checkpoint_at(saved).fact(two_words, ["x"])
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        checkpoint_at(saved).fact(two_words, path="x")


def test_former_names_of_what_lies_in_files(saved):
    checkpoint = checkpoint_at(saved)
    assert checkpoint.files.text("words.txt") == "a b\n"
    assert checkpoint.files.small_text("words.txt") == "a b"
    with pytest.raises(AttributeError, match="'Checkpoint' object has no attribute 'wieghts'"):
        _ = checkpoint.wieghts


def test_a_missing_attribute_in_a_layout_is_its_own(saved):
    class Slip(Ours):
        def config(self, checkpoint):
            return None.values

    with pytest.raises(LayoutFault, match="config raised AttributeError: 'NoneType' object has no attribute 'values'"):
        _ = checkpoint_at(saved, [Slip()]).config


PLUGIN = '''
from ckpt_rules import Fact, Layout, Match, Problem, Rule, hookimpl

WORDS = Fact("words", {of}, "words")

class Short(Rule):
    """There are too few words.

    ## What it checks
    Words.
    ## Why it matters
    Words.
    ## How to repair
    Words.
    """
    id = "ours/short"
    def check(self, checkpoint):
        if checkpoint[WORDS] < 3:
            yield Problem(message=f"there are {{checkpoint[WORDS]}} words")

class Ours(Layout):
    name, title = "ours", "ours"
    answers = {{WORDS: lambda checkpoint: {answer}}}
    def recognise(self, checkpoint):
        return Match({score}, ("words.txt",)) if checkpoint.listing.has_file("words.txt") else None

@hookimpl
def ckpt_rules_facts():
    return [WORDS]

@hookimpl
def ckpt_rules_layouts():
    return [Ours()]
'''


@pytest.fixture
def verified(saved, tmp_path_factory, capsys):
    """The exit code and the screen, with a local plugin of one file."""

    def go(of="int", answer="len(checkpoint.files.text('words.txt').split())", score=90):
        folder = tmp_path_factory.mktemp("rulesets")
        (folder / "ours.py").write_text(PLUGIN.format(of=of, answer=answer, score=score))
        (folder / "ours.yaml").write_text("plugins: [./ours.py]\nrules:\n  ours/short: error\n")
        code = main(["verify", str(saved), "--ruleset", str(folder / "ours.yaml"), "--layout", "ours"])
        return code, " ".join(capsys.readouterr().out.split())

    return go


def test_a_plugin_of_one_file_brings_fact_layout_and_rule(verified):
    code, screen = verified()
    assert "error ours/short" in screen
    assert "there are 2 words" in screen
    assert code == 1


def test_a_wrong_answer_is_blamed_on_the_layout(verified):
    code, screen = verified(answer="'many'")
    assert (
        "crashed ours/short LayoutFault: the layout ours is wrong: words is 'many', and must be of the class int"
        in screen
    )
    assert "a bug in the layout ours, not a fault of the checkpoint" in screen
    assert code == 2


def test_a_layout_that_raises_is_blamed_for_it(verified):
    code, screen = verified(answer="1 / 0")
    assert "ZeroDivisionError: division by zero" in screen
    assert "a bug in the layout ours, not a fault of the checkpoint" in screen
    assert code == 2


def test_a_score_that_is_none(verified):
    code, screen = verified(score=900)
    assert "ValueError: recognise returned a score of 900; it must be 1 to 100" in screen
    assert code == 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("return ['words']", "ckpt_rules_facts returned 'words', which is not a Fact"),
        ("return [Fact('Words!', int, 'words')]", "the name of a fact is 'Words!'; it must be a word in lower case"),
        (
            "return [Fact('weights', int, 'words')]",
            "the fact 'weights' comes with ckpt-rules; call yours something else",
        ),
        ("return [Fact('words', 'int', 'words')]", "the fact words is of 'int'; it must be a class"),
        ("return [Fact('words', int, 'words')] * 2", "two of its facts are called 'words'"),
    ],
)
def test_facts_that_are_none(tmp_path, source, said):
    path = tmp_path / "ours.py"
    path.write_text(f"from ckpt_rules import Fact, hookimpl\n@hookimpl\ndef ckpt_rules_facts():\n    {source}\n")
    (plugin,) = _loaded(path)
    assert said in plugin.crash.message


def _loaded(path):
    from ckpt_rules.plugins import installed_plugins

    return [p for p in installed_plugins().with_files([path]).plugins if p.origin == str(path) or p.name == str(path)]


def test_answers_that_are_none(tmp_path):
    path = tmp_path / "ours.py"
    path.write_text(
        "from ckpt_rules import Layout, hookimpl\nclass Ours(Layout):\n    name = title = 'ours'\n    answers = {'words': 3}\n"
        "@hookimpl\ndef ckpt_rules_layouts():\n    return [Ours()]\n"
    )
    (plugin,) = _loaded(path)
    assert "answers of the layout ours has 'words': 3; it must map a Fact to a function" in plugin.crash.message


def test_a_file_that_defines_nothing(tmp_path):
    (tmp_path / "ours.py").write_text("x = 1\n")
    with pytest.raises(PluginError, match="it defines no rule and implements no hook"):
        import_file(tmp_path / "ours.py")
