"""Commands run in this process, with plugins made on the spot beside the installed ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import SimpleNamespace

import pytest

from ckpt_rules.cli import main
from ckpt_rules.plugins import installed_plugins


@dataclass
class Run:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def run(capsys):
    """`run("verify", path)`: the command in this process."""

    def go(*arguments):
        code = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Run(code, captured.out, captured.err)

    return go


@pytest.fixture
def install(monkeypatch, plugin_module):
    """Install fake plugins for one test: `install(acme={"rules": [BadRule]})`; an exception as plugin fails to load."""

    def make(**plugins):
        def entry(name, hooks):
            def load():
                if isinstance(hooks, BaseException):
                    raise hooks
                return plugin_module(**hooks)

            dist = SimpleNamespace(name=f"ckpt-rules-{name}", version="1.2")
            return SimpleNamespace(name=name, value=f"ckpt_rules_{name}", dist=dist, load=load)

        fakes = [entry(name, hooks) for name, hooks in plugins.items()]
        monkeypatch.setattr("ckpt_rules.plugins.entry_points", lambda group: [*entry_points(group=group), *fakes])
        installed_plugins.cache_clear()

    yield make
    installed_plugins.cache_clear()
