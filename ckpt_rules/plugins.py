"""Which plugins there are and what each brings.

Every plugin is an entry point of the group `ckpt_rules`, the built-in ones too, or a Python file that a ruleset names.
Each is loaded by itself, so that one that fails costs only itself, and is collected by itself: in pluggy one raising
implementation would abort the hook call for all.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from ckpt_rules import hookspecs
from ckpt_rules.errors import PluginError
from ckpt_rules.layout import Layout
from ckpt_rules.report import Crash
from ckpt_rules.rule import HEADINGS, RULE_ID, Rule

if TYPE_CHECKING:
    from ckpt_rules.hookspecs import Reporter

GROUP = "ckpt_rules"


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
    layouts: tuple[Layout, ...] = ()
    reporters: Mapping[str, Reporter] = field(default_factory=dict)
    rulesets: Mapping[str, Path] = field(default_factory=dict)
    crash: Crash | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})".replace(" )", ")")


@dataclass(frozen=True, slots=True)
class Plugins:
    """All plugins of a run; nothing here depends on the order in which they were found.

    Two plugins that claim one rule id, layout or reporter name are refused with a `PluginError` that names both.
    """

    plugins: tuple[Plugin, ...]
    manager: pluggy.PluginManager
    disabled: frozenset[str] = frozenset()
    rules: Mapping[str, tuple[type[Rule], Plugin]] = field(init=False)
    former_ids: Mapping[str, str] = field(init=False)
    reporters: Mapping[str, Reporter] = field(init=False)
    rulesets: Mapping[str, Path] = field(init=False)

    def __post_init__(self) -> None:
        rules = _merge("rule", ((p, {r.id: (r, p) for r in p.rules}) for p in self.plugins))
        _merge("layout", ((p, {x.name: x for x in p.layouts}) for p in self.plugins))
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "former_ids", {old: i for i, (r, _) in rules.items() for old in r.former_ids})
        object.__setattr__(self, "reporters", _merge("reporter", ((p, p.reporters) for p in self.plugins)))
        rulesets = {f"{p.name}:{name}": path for p in self.plugins for name, path in p.rulesets.items()}
        object.__setattr__(self, "rulesets", dict(sorted(rulesets.items())))

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Every layout, sorted by name."""
        return tuple(sorted((x for p in self.plugins for x in p.layouts), key=lambda x: x.name))

    @property
    def broken(self) -> tuple[Plugin, ...]:
        """Plugins that could not be loaded or collected."""
        return tuple(p for p in self.plugins if p.crash)

    def layout_plugin(self, layout: Layout) -> Plugin | None:
        """The plugin that brought a layout."""
        return next((p for p in self.plugins if layout in p.layouts), None)

    def with_files(self, files: Iterable[Path]) -> Plugins:
        """The same, with local plugin files added; a file that can't be loaded is a broken plugin, not an exception."""
        missing = [f for f in dict.fromkeys(files) if str(f) not in {p.name for p in self.plugins}]
        if not missing:
            return self
        manager = _manager()
        for name, plugin in self.manager.list_name_plugin():
            if plugin is not None:
                manager.register(plugin, name)
        added = tuple(_load(manager, str(f), str(f), "", str(f), lambda f=f: _import_file(f)) for f in missing)  # type: ignore[misc]
        return Plugins((*self.plugins, *added), manager, self.disabled)


@cache
def installed_plugins(disabled: frozenset[str] = frozenset()) -> Plugins:
    """All installed plugins but those named. Cached: what is installed does not change under a running process."""
    found = sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value))
    unknown = disabled - {e.name for e in found}
    if unknown:
        names = ", ".join(sorted({e.name for e in found}))
        raise PluginError(f"there is no plugin {sorted(unknown)[0]!r} to leave out; installed are {names}")
    manager = _manager()
    plugins: list[Plugin] = []
    for entry in found:
        if entry.name not in disabled:
            clash = next((p for p in plugins if p.name == entry.name), None)
            distribution, version = _distribution(entry)
            if clash:
                raise PluginError(
                    f"two distributions provide a plugin called {entry.name!r}: {clash.distribution} "
                    f"{clash.version} and {distribution} {version}; uninstall one, or leave both out with "
                    f"--no-plugin {entry.name}"
                )
            plugins.append(_load(manager, entry.name, distribution, version, entry.value, entry.load))
    return Plugins(tuple(plugins), manager, disabled)


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist else ("an unknown distribution", "")


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _load(
    manager: pluggy.PluginManager, name: str, distribution: str, version: str, origin: str, load: Callable[[], object]
) -> Plugin:
    """Import, register and collect one plugin; whatever it raises is kept as its crash."""
    before = set(manager.get_plugins())
    try:
        plugin = load()
        manager.register(plugin, name)
        _refuse_unknown_hooks(manager, plugin)
        others = [p for p in manager.get_plugins() if p is not plugin]

        def collect(hook: str) -> list[Any]:
            found: list[Any] = manager.subset_hook_caller(hook, others)()
            return found

        rules = tuple(_checked(r) for found in collect("ckpt_rules_rules") for r in found)
        if isinstance(plugin, _RulesOfFile):
            rules += plugin.rules
        return Plugin(
            name,
            distribution,
            version,
            origin,
            rules,
            tuple(_instance(x) for found in collect("ckpt_rules_layouts") for x in found),
            {k: v for found in collect("ckpt_rules_reporters") for k, v in found.items()},
            {k: Path(v) for found in collect("ckpt_rules_rulesets") for k, v in found.items()},
        )
    except (Exception, SystemExit) as error:  # noqa: BLE001 - around loading a plugin, which may even call sys.exit
        for loaded in set(manager.get_plugins()) - before:
            manager.unregister(loaded)
        return Plugin(name, distribution, version, origin, crash=crash_of(error))


def _refuse_unknown_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    known = {n for n in dir(hookspecs) if n.startswith(f"{hookspecs.PROJECT}_")}
    wrong = sorted({c.name for c in manager.get_hookcallers(plugin) or ()} - known)
    if wrong:
        raise PluginError(f"{wrong[0]} is no hook of ckpt-rules; there are {', '.join(sorted(known))}")


def _checked(rule: Any) -> type[Rule]:
    if not (isinstance(rule, type) and issubclass(rule, Rule)):
        raise PluginError(f"ckpt_rules_rules returned {rule!r}, which is no subclass of Rule")
    rule_id = getattr(rule, "id", None)
    if not isinstance(rule_id, str) or not RULE_ID.fullmatch(rule_id):
        raise PluginError(f"{rule.__name__}.id is {rule_id!r}; an id reads `family/defect`, in lower case with hyphens")
    page = rule.page()
    missing = [h for h in HEADINGS if not page.sections.get(h)]
    if not page.summary or missing:
        what = f"the section '## {missing[0]}'" if page.summary else "a summary line"
        raise PluginError(f"the docstring of {rule_id} has not {what}; a rule's docstring is its page")
    return rule


def _instance(layout: Any) -> Layout:
    if not isinstance(layout, Layout):
        raise PluginError(f"ckpt_rules_layouts returned {layout!r}, which is no instance of Layout")
    return layout


def _merge(what: str, offers: Iterable[tuple[Plugin, Mapping[str, Any]]]) -> dict[str, Any]:
    owners: dict[str, Plugin] = {}
    merged: dict[str, Any] = {}
    for plugin, offered in offers:
        for name, value in offered.items():
            if name in owners:
                raise PluginError(
                    f"two plugins claim the {what} {name!r}: {owners[name]} and {plugin}; "
                    f"uninstall one, or leave it out with --no-plugin NAME"
                )
            owners[name] = plugin
            merged[name] = value
    return dict(sorted(merged.items()))


@dataclass(frozen=True)
class _RulesOfFile:
    """A local plugin file without hooks: the rules that it defines are what it brings."""

    rules: tuple[type[Rule], ...]


def _import_file(path: Path) -> object:
    """The module of a local plugin file, or the rules defined in it where it has no hooks."""
    name = f"ckpt_rules_local_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks a model's annotations up in the module it was defined in
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    if any(hasattr(value, "ckpt_rules_impl") for value in vars(module).values()):
        return module
    rules = tuple(_checked(v) for v in _defined_rules(module))
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
    """An exception as part of a report."""
    lines = traceback.format_exception(error)
    return Crash(type=type(error).__name__, message=str(error) or "no message", traceback="".join(lines))
