"""Rules, plugins and rulesets made on the spot, for tests of the engine that need no real ones."""

from __future__ import annotations

from collections import defaultdict
from types import ModuleType

import pytest

from ckpt_rules import Layout, Match, Problem, Recorded, Rule, Severity, hookimpl
from ckpt_rules.plugin import load_plugin
from ckpt_rules.plugins import Plugins, _manager
from ckpt_rules.ruleset.resolved import Origin, ResolvedRuleset, SelectedRule

PAGE = """{summary}

## What it checks
That there is nothing of the sort.

## Why it matters
Training would go wrong silently.

## How to repair
Save it again.
"""


class Understood(Layout):
    """Takes every directory for a checkpoint, faintly, and knows its progress: what is tested is something else."""

    name = "understood"
    title = "a layout that is understood"

    def recognise(self, checkpoint):
        return Match(1, ("everything",))

    def recorded(self, checkpoint):
        return (Recorded("global_step", 1, ".", "the directory"),)


@pytest.fixture
def understood():
    """A layout that takes every directory for a checkpoint."""
    return Understood()


@pytest.fixture
def fake_rule():
    """A rule class: `fake_rule("acme/bad", finds=["it is bad"])`, or with any function of a checkpoint as its check."""

    def make(rule_id="acme/bad", check=None, *, finds=(), summary="Something is bad.", options=None, **attributes):
        def answer(self, checkpoint):
            return check(checkpoint) if check else [Problem(message=message) for message in finds]

        options = options or {}
        namespace = {
            "__doc__": PAGE.format(summary=summary),
            "__module__": __name__,
            "__annotations__": {name: kind for name, (kind, _) in options.items()},
            **{name: field for name, (_, field) in options.items()},
            "id": rule_id,
            "check": answer,
            **attributes,
        }
        return type(rule_id.replace("/", "_").replace("-", "_"), (Rule,), namespace)

    return make


@pytest.fixture
def plugin_module():
    """A plugin as an author writes it: a module with hooks. Whatever is given is returned by its hook."""

    def make(**hooks):
        module = ModuleType("a_plugin")
        for name, answer in hooks.items():
            function = answer if callable(answer) and not isinstance(answer, type) else lambda answer=answer: answer
            setattr(module, f"ckpt_rules_{name}", hookimpl(function))
        return module

    return make


@pytest.fixture
def load(plugin_module):
    """One plugin, loaded as installed ones are: `load("acme", rules=[…])`."""

    def make(name="acme", **hooks):
        module = plugin_module(**hooks)
        return load_plugin(_manager(), name, f"ckpt-rules-{name}", "1.2", f"ckpt_rules_{name}", lambda: module)

    return make


@pytest.fixture
def plugins_of(plugin_module):
    """`Plugins` of several fakes: `plugins_of(acme={"rules": [BadRule]}, other={…})`."""

    def make(**plugins):
        manager = _manager()
        loaded = [
            load_plugin(
                manager, name, f"ckpt-rules-{name}", "1.2", f"ckpt_rules_{name}", lambda h=hooks: plugin_module(**h)
            )
            for name, hooks in plugins.items()
        ]
        return Plugins(tuple(loaded), manager)

    return make


@pytest.fixture
def ruleset_of(plugins_of):
    """A resolved ruleset of these rules in their order, brought by a plugin called acme."""

    def make(*rules, plugins=None, strict=False, ignores=(), notices=(), severity=None, **options):
        plugins = plugins or plugins_of(acme={"rules": list(rules), "layouts": [Understood()]})
        selected = tuple(
            SelectedRule(rule(), plugins.rules[rule.id][1].name, severity, Origin("team.yaml", 3), {}) for rule in rules
        )
        return ResolvedRuleset("team", "", strict, selected, tuple(ignores), plugins, tuple(notices), **options)

    return make


@pytest.fixture
def problem():
    """A problem about a file."""

    def make(message="it is bad", path="model.safetensors", severity: Severity | None = None, **place):
        return Problem(message=message, place={"path": path, **place}, severity=severity)

    return make


def pytest_terminal_summary(terminalreporter):
    """The kill rate of each layout, and each damage that lives with the reason why it may."""
    surveys = defaultdict(list)
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "kill rate":
                surveys[value["layout"]].append(value)
    if surveys:
        terminalreporter.section("kill rates")
    for layout, found in sorted(surveys.items()):
        total, lived = (sum(n) for n in zip(*((v["total"], len(v["survivors"])) for v in found), strict=True))
        terminalreporter.line(f"{layout}: {total - lived} of {total} damages found ({(total - lived) / total:.0%})")
        reasons = defaultdict(list)
        for value in found:
            for damage, reason in value["survivors"].items():
                reasons[reason].append(damage)
        for reason, damages in reasons.items():
            terminalreporter.line(f"    {reason}: {', '.join(sorted(set(damages)))}")
