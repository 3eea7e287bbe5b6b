"""How plugins are found, loaded and collected, and what is said about those that fail."""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from ckpt_rules import Layout, PluginError, Rule
from ckpt_rules.plugin import load_plugin
from ckpt_rules.plugins import _manager, installed_plugins


class Acme(Layout):
    name = "acme"
    title = "acme checkpoints"


class TestWhatAPluginBrings:
    def test_rules_layouts_reporters_and_rulesets(self, load, fake_rule):
        def reporter(report):
            return ""

        layout = Acme()
        plugin = load(
            rules=[rule := fake_rule()],
            layouts=[layout],
            reporters=lambda: {"acme": reporter},
            rulesets=lambda: {"house": "/etc/house.yaml"},
        )
        assert (plugin.rules, plugin.layouts, plugin.crash) == ((rule,), (layout,), None)
        assert plugin.reporters == {"acme": reporter}
        assert plugin.rulesets == {"house": Path("/etc/house.yaml")}
        assert str(plugin) == "acme (ckpt-rules-acme 1.2)"

    def test_a_hook_may_be_a_generator_and_may_return_none(self, load, fake_rule):
        rule = fake_rule()

        def rules():
            yield rule

        assert load(rules=rules, layouts=lambda: None).rules == (rule,)


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ({"rules": lambda: 1 / 0}, "ZeroDivisionError: division by zero"),
        ({"rules": lambda: sys.exit("no")}, "SystemExit: no"),
        ({"rules": lambda: 5}, "PluginError: ckpt_rules_rules returned 5; it must return a list"),
        ({"rules": lambda: "acme"}, "PluginError: ckpt_rules_rules returned 'acme'; it must return a list"),
        ({"rules": lambda: {"a": 1}}, "PluginError: ckpt_rules_rules returned {'a': 1}; it must return a list"),
        ({"rules": lambda: [5]}, "PluginError: ckpt_rules_rules returned 5, which is not a subclass of Rule"),
        ({"layouts": lambda: [Acme]}, "which is not an instance of Layout"),
        ({"layouts": lambda: [Layout()]}, "PluginError: the layout Layout has no name; set it to a string"),
        ({"reporters": lambda: ["x"]}, "PluginError: ckpt_rules_reporters returned ['x']; it must return a mapping"),
        ({"reporters": lambda: {"x": 1}}, "returned 'x': 1; it must map a name to a function"),
        ({"reporters": lambda: {"json": str}}, "the reporter name 'json' is built in; call yours something else"),
        ({"rulesets": lambda: {"x": 1}}, "returned 'x': 1; it must map a name to the path of a file"),
        ({"rulez": list}, "ckpt_rules_rulez is not a hook of ckpt-rules; did you mean ckpt_rules_rules?"),
        ({"rules": lambda wrong: []}, "wrong"),
    ],
)
def test_a_plugin_that_misbehaves_brings_nothing_and_says_why(load, hooks, message):
    plugin = load(**hooks)
    assert message in f"{plugin.crash.type}: {plugin.crash.message}"
    assert (plugin.rules, plugin.layouts, plugin.reporters, plugin.rulesets) == ((), (), {}, {})


class TestWhatARuleMustLookLike:
    @pytest.mark.parametrize("rule_id", ["bad", "Acme/bad", "acme/", "acme/bad_thing", "acme/bad/worse", "", 3])
    def test_its_id(self, load, fake_rule, rule_id):
        rule = fake_rule("acme/fine")
        rule.id = rule_id
        message = load(rules=[rule]).crash.message
        assert message == f"acme_fine.id is {rule_id!r}; an id reads `family/defect`, in lower case with hyphens"

    @pytest.mark.parametrize(
        ("docstring", "missing"),
        [
            ("", "a summary line"),
            ("Something is bad.", "the section '## What it checks'"),
            (
                "Bad.\n\n## What it checks\nx\n\n## Why it matters\n\n## How to repair\nz",
                "the section '## Why it matters'",
            ),
        ],
    )
    def test_its_page(self, load, fake_rule, docstring, missing):
        rule = fake_rule()
        rule.__doc__ = docstring
        message = load(rules=[rule]).crash.message
        assert message == f"the docstring of acme/bad has not {missing}; a rule's docstring is its page"

    @pytest.mark.parametrize(
        ("attribute", "value", "wanted"),
        [
            ("severity", "error", "a Severity"),
            ("reads", "listing", "a Reads"),
            ("applies_to", "plain-torch", "a set of names of layouts"),
            ("applies_to", frozenset({Layout}), "a set of names of layouts"),
            ("applies_to", None, "a set of names of layouts"),
        ],
    )
    def test_its_attributes(self, load, fake_rule, attribute, value, wanted):
        crash = load(rules=[fake_rule(**{attribute: value})]).crash
        assert (crash.type, crash.message) == (
            "PluginError",
            f"{attribute} of acme/bad is {value!r}; it must be {wanted}",
        )

    def test_its_id_is_its_own_within_the_plugin(self, load, fake_rule):
        crash = load(rules=[fake_rule(), fake_rule()]).crash
        assert crash.message.startswith("two of its rules are called 'acme/bad': ")


class TestSeveralPlugins:
    def test_all_rules_are_sorted_by_id_whatever_the_order(self, plugins_of, fake_rule):
        a, b = fake_rule("a/x"), fake_rule("b/x")
        assert list(plugins_of(one={"rules": [b]}, two={"rules": [a]}).rules) == ["a/x", "b/x"]

    def test_a_rule_id_claimed_twice_names_both_distributions(self, plugins_of, fake_rule):
        with pytest.raises(PluginError) as caught:
            plugins_of(acme={"rules": [fake_rule()]}, other={"rules": [fake_rule()]})
        assert str(caught.value) == (
            "two plugins claim the rule 'acme/bad': acme (ckpt-rules-acme 1.2) and other (ckpt-rules-other 1.2); "
            "uninstall one, or leave it out: --no-plugin acme"
        )

    @pytest.mark.parametrize(
        ("hooks", "what"),
        [
            (lambda rule: {"layouts": [Acme()]}, "layout 'acme'"),
            (lambda rule: {"reporters": lambda: {"table": str}}, "reporter 'table'"),
            (lambda rule: {"rules": [rule]}, "former rule id 'acme/old'"),
        ],
        ids=["layout", "reporter", "former id"],
    )
    def test_other_names_claimed_twice_are_refused_as_well(self, plugins_of, fake_rule, hooks, what):
        one, two = fake_rule("one/bad", former_ids=("acme/old",)), fake_rule("two/bad", former_ids=("acme/old",))
        with pytest.raises(PluginError, match=rf"two plugins claim the {what}: acme .* and other "):
            plugins_of(acme=hooks(one), other=hooks(two))

    def test_one_that_fails_costs_only_itself(self, plugins_of, fake_rule):
        plugins = plugins_of(bad={"rules": lambda: 1 / 0}, good={"rules": [fake_rule()]})
        assert ([p.name for p in plugins.broken], list(plugins.rules)) == (["bad"], ["acme/bad"])
        assert [name for name, plugin in plugins.manager.list_name_plugin() if plugin] == ["good"]

    def test_rulesets_are_known_by_plugin_and_name(self, plugins_of):
        plugins = plugins_of(
            acme={"rulesets": lambda: {"house": "a.yaml"}}, other={"rulesets": lambda: {"house": "b.yaml"}}
        )
        assert plugins.rulesets == {"acme:house": Path("a.yaml"), "other:house": Path("b.yaml")}


class TestLoading:
    def load(self, load):
        return load_plugin(_manager(), "acme", "ckpt-rules-acme", "1.2", "ckpt_rules_acme", load)

    def test_a_module_that_is_not_there(self):
        def load():
            raise ModuleNotFoundError("No module named 'acme'")

        crash = self.load(load).crash
        assert (crash.type, crash.message) == ("ModuleNotFoundError", "No module named 'acme'")

    def test_a_module_that_exits_when_imported(self):
        assert self.load(lambda: sys.exit(0)).crash.type == "SystemExit"

    def test_an_entry_point_that_names_something_unhashable(self):
        crash = self.load(SimpleNamespace).crash
        assert "unhashable" in crash.message

    def test_the_same_module_under_two_names(self):
        manager, module = _manager(), ModuleType("acme")
        first, second = (load_plugin(manager, name, "d", "1", "m", lambda: module) for name in ("one", "two"))
        assert (first.crash, second.crash.type) == (None, "ValueError")
        assert manager.get_plugin("one") is module


PAGE = '''"""Something is bad.

    ## What it checks
    x

    ## Why it matters
    y

    ## How to repair
    z
    """'''

WITHOUT_HOOKS = f"""
from __future__ import annotations
from typing import Literal
from pydantic import Field
from ckpt_rules import Rule

class Bad(Rule):
    {PAGE}
    id = "ours/bad"
    unit: Literal["step", "epoch"] = Field(default="step", description="What is counted.")
    def check(self, checkpoint):
        return []
"""

WITH_HOOKS = (
    WITHOUT_HOOKS
    + """
from ckpt_rules import hookimpl

@hookimpl
def ckpt_rules_rules():
    return [Bad]
"""
)


class TestLocalFiles:
    @pytest.mark.parametrize("text", [WITHOUT_HOOKS, WITH_HOOKS], ids=["rules alone", "hooks"])
    def test_its_rules_are_added(self, tmp_path, plugins_of, fake_rule, text):
        (tmp_path / "ours.py").write_text(text)
        plugins = plugins_of(acme={"rules": [fake_rule()]}).with_files([tmp_path / "ours.py"])
        assert [p.crash for p in plugins.plugins] == [None, None]
        assert list(plugins.rules) == ["acme/bad", "ours/bad"]
        rule, owner = plugins.rules["ours/bad"]
        assert (owner.name, owner.version) == (str(tmp_path / "ours.py"), "")
        assert rule(unit="epoch").unit == "epoch"

    def test_one_file_named_twice_is_loaded_once(self, tmp_path, plugins_of):
        (tmp_path / "ours.py").write_text(WITHOUT_HOOKS)
        plugins = plugins_of().with_files([tmp_path / "ours.py", tmp_path / "ours.py"])
        assert plugins.with_files([tmp_path / "ours.py"]) is plugins

    @pytest.mark.parametrize(
        ("text", "crash"),
        [
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("x = ", "SyntaxError: invalid syntax"),
            ("import sys; sys.exit(0)", "SystemExit: 0"),
            ("x = 1", "PluginError: it defines no rule and implements no hook"),
            (None, "FileNotFoundError: "),
        ],
    )
    def test_one_that_fails_is_a_broken_plugin(self, tmp_path, plugins_of, text, crash):
        if text is not None:
            (tmp_path / "ours.py").write_text(text)
        (broken,) = plugins_of().with_files([tmp_path / "ours.py"]).broken
        assert f"{broken.crash.type}: {broken.crash.message}".startswith(crash)

    def test_one_that_is_no_python_file(self, tmp_path, plugins_of):
        (tmp_path / "ours.txt").write_text(WITHOUT_HOOKS)
        (broken,) = plugins_of().with_files([tmp_path / "ours.txt"]).broken
        assert broken.crash.message == f"{tmp_path / 'ours.txt'} is not Python file"


class TestInstalled:
    def fake(self, monkeypatch, *found):
        monkeypatch.setattr("ckpt_rules.plugins.entry_points", lambda group: found)
        installed_plugins.cache_clear()
        monkeypatch.setattr("ckpt_rules.plugins.installed_plugins", installed_plugins)

    @pytest.fixture(autouse=True)
    def _fresh(self):
        yield
        installed_plugins.cache_clear()

    def entry(self, name, value, distribution="ckpt-rules-acme", version="1.2"):
        class Fake(Distribution):
            metadata = {"Name": distribution, "Version": version}

            def read_text(self, filename):
                return None

            def locate_file(self, path):
                return Path()

        return EntryPoint(name, value, "ckpt_rules")._for(Fake())

    def test_the_built_in_plugins_come_by_the_same_group(self):
        plugins = installed_plugins()
        assert {"files", "weights", "training", "torch"} <= {p.name for p in plugins.plugins}
        assert {p.distribution for p in plugins.plugins if p.name == "files"} == {"ckpt-rules"}
        assert plugins.broken == ()
        assert all(issubclass(rule, Rule) for rule, _ in plugins.rules.values())

    def test_one_can_be_left_out(self):
        assert "files" not in {p.name for p in installed_plugins(frozenset({"files"})).plugins}

    def test_leaving_out_one_that_is_not_there_is_an_error(self):
        with pytest.raises(PluginError, match=r"there is no plugin 'filez' to leave out; installed are .*files"):
            installed_plugins(frozenset({"filez"}))

    def test_one_that_cannot_be_imported_names_its_distribution(self, monkeypatch):
        self.fake(monkeypatch, self.entry("acme", "ckpt_rules_that_is_nowhere"))
        (broken,) = installed_plugins().broken
        assert (str(broken), broken.crash.type) == ("acme (ckpt-rules-acme 1.2)", "ModuleNotFoundError")

    def test_one_name_by_two_distributions_is_refused(self, monkeypatch):
        self.fake(
            monkeypatch, self.entry("acme", "ckpt_rules_files"), self.entry("acme", "ckpt_rules_torch", "other", "3")
        )
        with pytest.raises(PluginError) as caught:
            installed_plugins()
        assert str(caught.value) == (
            "two distributions provide a plugin called 'acme': ckpt-rules-acme 1.2 and other 3; "
            "uninstall one, or leave both out with --no-plugin acme"
        )
        assert installed_plugins(frozenset({"acme"})).plugins == ()
