"""Which plugins there are and what each brings.

Every plugin is an entry point of the group `ckpt_rules`, the built-in ones too, or a Python file that a ruleset names.
Each is loaded by itself, so that one that fails costs only itself, and is collected by itself: in pluggy one raising
implementation would abort the hook call for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from ckpt_rules import hookspecs
from ckpt_rules.errors import PluginError
from ckpt_rules.layout import Layout
from ckpt_rules.plugin import Plugin, import_file, load_plugin

if TYPE_CHECKING:
    from ckpt_rules.hookspecs import Reporter
    from ckpt_rules.rule import Rule

__all__ = ["GROUP", "Plugin", "Plugins", "installed_plugins"]

GROUP = "ckpt_rules"


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
        _merge("fact", ((p, {f.name: f for f in p.facts}) for p in self.plugins))
        _merge("layout", ((p, {x.name: x for x in p.layouts}) for p in self.plugins))
        object.__setattr__(self, "rules", rules)
        former = ((p, {old: r.id for r in p.rules for old in r.former_ids}) for p in self.plugins)
        object.__setattr__(self, "former_ids", _merge("former rule id", former))
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
        added = tuple(load_plugin(manager, str(f), str(f), "", str(f), partial(import_file, f)) for f in missing)
        return Plugins((*self.plugins, *added), manager, self.disabled)


@cache
def installed_plugins(disabled: frozenset[str] = frozenset()) -> Plugins:
    """All installed plugins but those named. Cached: what is installed does not change under a running process."""
    found = sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value))
    unknown = disabled - {e.name for e in found}
    if unknown:
        names = ", ".join(sorted({e.name for e in found}))
        raise PluginError(f"there is no plugin {min(unknown)!r} to leave out; installed are {names}")
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
            plugins.append(load_plugin(manager, entry.name, distribution, version, entry.value, entry.load))
    return Plugins(tuple(plugins), manager, disabled)


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist else ("an unknown distribution", "")


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _merge(what: str, offers: Iterable[tuple[Plugin, Mapping[str, Any]]]) -> dict[str, Any]:
    owners: dict[str, Plugin] = {}
    merged: dict[str, Any] = {}
    for plugin, offered in offers:
        for name, value in offered.items():
            if name in owners:
                raise PluginError(
                    f"two plugins claim the {what} {name!r}: {owners[name]} and {plugin}; "
                    f"uninstall one, or leave it out: --no-plugin {owners[name].name}"
                )
            owners[name] = plugin
            merged[name] = value
    return dict(sorted(merged.items()))
