"""The plugins that watch a run: each is told by itself, and one that raises is noted once and then left alone."""

from __future__ import annotations

import pluggy

from ckpt_rules.finding import Severity
from ckpt_rules.plugin import crash_of
from ckpt_rules.report import Notice


class Observers:
    """Every implementation of the hooks that observe. `notices` says which of them crashed."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._manager = manager
        self._silenced: set[object] = set()
        self.notices: list[Notice] = []

    def tell(self, hook: str, **news: object) -> None:
        """Call one hook of every plugin that has it; an observer's fault must not cost the user the report."""
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            plugin = implementation.plugin
            if plugin in self._silenced:
                continue
            others = [p for p in self._manager.get_plugins() if p is not plugin]
            try:
                self._manager.subset_hook_caller(hook, others)(**news)
            except BaseException as error:  # noqa: BLE001 - around a plugin's code
                crash = crash_of(error)
                self._silenced.add(plugin)
                message = f"the plugin {implementation.plugin_name} crashed in {hook}: {crash.type}: {crash.message}"
                self.notices.append(Notice(severity=Severity.ERROR, message=message, fatal=True, crash=crash))
