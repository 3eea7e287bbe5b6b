"""One plugin: how it is loaded, what it must look like, and what it brings. Whatever it raises becomes its crash."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pluggy
from pydantic import ValidationError

from ckpt_rules import hookspecs
from ckpt_rules.errors import PluginError
from ckpt_rules.fact import Fact
from ckpt_rules.finding import Severity
from ckpt_rules.known_facts import KNOWN
from ckpt_rules.layout import Layout
from ckpt_rules.report import Crash
from ckpt_rules.rule import HEADINGS, RULE_ID, Reads, Rule
from ckpt_rules.save_names import fault

if TYPE_CHECKING:
    from ckpt_rules.hookspecs import Reporter

BUILT_IN_REPORTERS = ("text", "json")

_LOCAL = "ckpt_rules_local_"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin and what it brings; `crash` says why it brings nothing.

    name:         the entry point's name, or the file's path as the ruleset names it
    distribution: the installed distribution that it comes from, or the file
    version:      of that distribution, '' for a file
    origin:       the module, or the file
    """

    name: str
    distribution: str
    version: str
    origin: str
    rules: tuple[type[Rule], ...] = ()
    facts: tuple[Fact[Any], ...] = ()
    layouts: tuple[Layout, ...] = ()
    reporters: Mapping[str, Reporter] = field(default_factory=dict)
    rulesets: Mapping[str, Path] = field(default_factory=dict)
    crash: Crash | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})".replace(" )", ")")


def load_plugin(
    manager: pluggy.PluginManager, name: str, distribution: str, version: str, origin: str, load: Callable[[], object]
) -> Plugin:
    """Import, register and collect one plugin; one that fails is unregistered and says why in its `crash`."""
    before = set(manager.get_plugins())
    try:
        plugin = load()
        hash(plugin)  # pluggy keeps plugins in sets
        manager.register(plugin, name)
        _refuse_unknown_hooks(manager, plugin)
        return _collected(Plugin(name, distribution, version, origin), _Hooks(manager, plugin), plugin)
    except BaseException as error:  # noqa: BLE001 - around loading a plugin, which may even call sys.exit
        crash = crash_of(error)
        for loaded in set(manager.get_plugins()) - before:
            manager.unregister(loaded)
        return Plugin(name, distribution, version, origin, crash=crash)


class _Hooks:
    """The hooks that collect, asked of one plugin alone."""

    def __init__(self, manager: pluggy.PluginManager, plugin: object) -> None:
        self._manager = manager
        self._others = [p for p in manager.get_plugins() if p is not plugin]

    def things(self, hook: str) -> list[Any]:
        """Everything in the iterables that the plugin's implementations return; None counts as empty."""
        found: list[Any] = []
        for answer in self._manager.subset_hook_caller(hook, self._others)():
            if not isinstance(answer, Iterable) or isinstance(answer, str | Mapping):
                raise PluginError(f"{hook} returned {answer!r}; it must return a list")
            found += answer
        return found

    def names(self, hook: str) -> dict[Any, Any]:
        """Everything in the mappings that the plugin's implementations return; None counts as empty."""
        found: dict[Any, Any] = {}
        for answer in self._manager.subset_hook_caller(hook, self._others)():
            if not isinstance(answer, Mapping):
                raise PluginError(f"{hook} returned {answer!r}; it must return a mapping from names")
            found |= answer
        return found


def _collected(empty: Plugin, hooks: _Hooks, plugin: object) -> Plugin:
    rules = [_rule(r) for r in hooks.things("ckpt_rules_rules")]
    if isinstance(plugin, _RulesOfFile):
        rules += plugin.rules
    elif (
        isinstance(plugin, ModuleType)
        and plugin.__name__.startswith(_LOCAL)
        and not hasattr(plugin, "ckpt_rules_rules")
    ):
        rules += map(_rule, _defined_rules(plugin))
    layouts = [_layout(x) for x in hooks.things("ckpt_rules_layouts")]
    return replace(
        empty,
        rules=tuple(_distinct("rule", rules, lambda r: r.id)),
        facts=tuple(_distinct("fact", [_fact(f) for f in hooks.things("ckpt_rules_facts")], lambda f: f.name)),
        layouts=tuple(_distinct("layout", layouts, lambda x: x.name)),
        reporters={k: _reporter(k, v) for k, v in hooks.names("ckpt_rules_reporters").items()},
        rulesets={k: _ruleset(k, v) for k, v in hooks.names("ckpt_rules_rulesets").items()},
    )


def _refuse_unknown_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    known = sorted(n for n in dir(hookspecs) if n.startswith(f"{hookspecs.PROJECT}_"))
    for wrong in sorted({c.name for c in manager.get_hookcallers(plugin) or ()} - set(known)):
        nearest = get_close_matches(wrong, known, n=1, cutoff=0)[0]
        raise PluginError(f"{wrong} is not a hook of ckpt-rules; did you mean {nearest}?")


def _rule(rule: Any) -> type[Rule]:
    if not (isinstance(rule, type) and issubclass(rule, Rule)):
        raise PluginError(f"ckpt_rules_rules returned {rule!r}, which is not a subclass of Rule")
    rule_id = getattr(rule, "id", None)
    if not isinstance(rule_id, str) or not RULE_ID.fullmatch(rule_id):
        raise PluginError(f"{rule.__name__}.id is {rule_id!r}; an id reads `family/defect`, in lower case with hyphens")
    page = rule.page()
    missing = [h for h in HEADINGS if not page.sections.get(h)]
    if not page.summary or missing:
        what = f"the section '## {missing[0]}'" if page.summary else "a summary line"
        raise PluginError(f"the docstring of {rule_id} has not {what}; a rule's docstring is its page")
    for name, (fits, words) in _ATTRIBUTES.items():
        if not fits(value := getattr(rule, name)):
            raise PluginError(f"{name} of {rule_id} is {value!r}; it must be {words}")
    return rule


def _is_set_of_words(value: object) -> bool:
    return isinstance(value, set | frozenset) and all(isinstance(word, str) for word in value)


def _is_words(value: object) -> bool:
    return isinstance(value, tuple | list | set | frozenset) and all(isinstance(word, str) for word in value)


_ATTRIBUTES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "severity": (lambda value: isinstance(value, Severity), "a Severity"),
    "tags": (_is_words, "a set of words"),
    "reads": (lambda value: isinstance(value, Reads), "a Reads"),
    "applies_to": (_is_set_of_words, "a set of names of layouts"),
    "last": (lambda value: isinstance(value, bool), "True or False"),
    "former_ids": (_is_words, "a tuple of ids"),
}


def _fact(fact: Any) -> Fact[Any]:
    if not isinstance(fact, Fact):
        raise PluginError(f"ckpt_rules_facts returned {fact!r}, which is not a Fact")
    if not (isinstance(fact.name, str) and _NAME.fullmatch(fact.name)):
        raise PluginError(f"the name of a fact is {fact.name!r}; it must be a word in lower case, with hyphens")
    if fact.name in {known.name for known in KNOWN}:
        raise PluginError(f"the fact {fact.name!r} comes with ckpt-rules; call yours something else")
    if not isinstance(fact.of, type):
        raise PluginError(f"the fact {fact.name} is of {fact.of!r}; it must be a class")
    return fact


def _layout(layout: Any) -> Layout:
    if not isinstance(layout, Layout):
        raise PluginError(f"ckpt_rules_layouts returned {layout!r}, which is not an instance of Layout")
    for attribute in ("name", "title"):
        if not isinstance(getattr(layout, attribute, None), str):
            raise PluginError(f"the layout {type(layout).__name__} has no {attribute}; set it to a string")
    for fact, answer in _answers(layout):
        if not (isinstance(fact, Fact) and callable(answer)):
            raise PluginError(
                f"answers of the layout {layout.name} has {fact!r}: {answer!r}; it must map a Fact to a function"
            )
    for attribute in ("save_names", "save_files"):
        declared = getattr(layout, attribute)
        if not isinstance(declared, tuple):
            raise PluginError(f"{attribute} of the layout {layout.name} is {declared!r}; it must be a tuple of names")
        for name in declared:
            if wrong := fault(name):
                raise PluginError(f"{attribute} of the layout {layout.name}: {name!r} {wrong}")
    return layout


def _answers(layout: Layout) -> Iterable[tuple[object, object]]:
    if not isinstance(layout.answers, Mapping):
        raise PluginError(
            f"answers of the layout {layout.name} is {layout.answers!r}; it must map a Fact to a function"
        )
    return layout.answers.items()


def _reporter(name: Any, reporter: Any) -> Reporter:
    if name in BUILT_IN_REPORTERS:
        raise PluginError(f"the reporter name {name!r} is built in; call yours something else")
    if not (isinstance(name, str) and callable(reporter)):
        raise PluginError(f"ckpt_rules_reporters returned {name!r}: {reporter!r}; it must map a name to a function")
    return cast("Reporter", reporter)


def _ruleset(name: Any, path: Any) -> Path:
    if not (isinstance(name, str) and isinstance(path, str | PathLike)):
        raise PluginError(f"ckpt_rules_rulesets returned {name!r}: {path!r}; it must map a name to the path of a file")
    return Path(path)


def _distinct(what: str, things: list[T], name_of: Callable[[T], str]) -> list[T]:
    seen: dict[str, T] = {}
    for thing in things:
        name = name_of(thing)
        if name in seen:
            raise PluginError(f"two of its {what}s are called {name!r}: {seen[name]!r} and {thing!r}")
        seen[name] = thing
    return things


@dataclass(frozen=True)
class _RulesOfFile:
    """A local plugin file without hooks: the rules that it defines are what it brings."""

    rules: tuple[type[Rule], ...]


def import_file(path: Path) -> object:
    """The module of a local plugin file, or the rules defined in it where it has no hooks.

    A file with hooks brings the rules defined in it as well, unless it lists its rules with `ckpt_rules_rules`.
    """
    name = f"{_LOCAL}{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is not Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks a model's annotations up in the module it was defined in
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    if any(hasattr(value, "ckpt_rules_impl") for value in vars(module).values()):
        return module
    rules = tuple(_rule(v) for v in _defined_rules(module))
    if not rules:
        raise PluginError("it defines no rule and implements no hook")
    return _RulesOfFile(rules)


def _defined_rules(module: ModuleType) -> list[object]:
    return [
        v
        for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, Rule) and v.__module__ == module.__name__ and hasattr(v, "id")
    ]


def crash_of(error: BaseException) -> Crash:
    """Whatever the code of a plugin raised, `SystemExit` and its like included, as part of a report; ^C is passed on."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    try:
        message = _of_validation(error) if isinstance(error, ValidationError) else str(error)
    except Exception:  # noqa: BLE001 - an exception of a plugin may not even be able to say what it is
        message = "its text is not available: __str__ raises as well"
    lines = traceback.format_exception(error)
    return Crash(type=type(error).__name__, message=message or "no message", traceback="".join(lines))


def _of_validation(error: ValidationError) -> str:
    """Each field that is wrong, and the line of the plugin that gave it, which pydantic leaves out."""
    fields = (
        f"{'.'.join(map(str, e['loc'])) or 'the whole'}: {e['msg'][0].lower()}{e['msg'][1:]}" for e in error.errors()
    )
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "pydantic" not in f.filename]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{error.title}: {'; '.join(fields)}{where}"
