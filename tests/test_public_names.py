"""The flat namespace over private modules: what `ckpt_rules` exports, that it is one list, and that it stays so."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import ckpt_rules


def test_type_checkers_see_the_same_names():
    stub = Path(ckpt_rules.__file__).with_suffix(".pyi").read_text("utf-8")
    seen = {}
    for node in ast.parse(stub).body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name  # without it, the name would not be public
            seen[alias.name] = node.module
    modules = {name: home.rpartition(".")[0] for name, home in ckpt_rules._MODULES.items()}
    assert seen == ckpt_rules._HOME_OF | modules
    assert dir(ckpt_rules) == sorted(seen)


@pytest.mark.parametrize("name", sorted(ckpt_rules._MODULES))
def test_each_module_is_documented(name):
    assert getattr(ckpt_rules, name) is import_module(ckpt_rules._MODULES[name])
    assert inspect.getdoc(getattr(ckpt_rules, name))


@pytest.mark.parametrize("name", sorted(ckpt_rules._HOME_OF))
def test_each_name_is_what_its_module_defines_and_is_documented(name):
    value = getattr(ckpt_rules, name)
    assert value is getattr(import_module(ckpt_rules._HOME_OF[name]), name)
    if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
        assert inspect.getdoc(value)


def test_star_import_gives_all_of_it():
    namespace = {}
    exec("from ckpt_rules import *", namespace)
    assert set(ckpt_rules.__all__) <= set(namespace)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match=r"module 'ckpt_rules' has no attribute 'verfy'"):
        _ = ckpt_rules.verfy


@pytest.mark.parametrize(
    "name",
    [
        "verify", "inspect", "quick_verify_checkpoint", "CheckpointInvalid", "CkptRulesError", "UsageError", "RulesetError",
        "PluginError", "FactUnavailable", "Rule", "Problem", "Place", "Severity", "Finding", "Reads", "Layout", "Match",
        "Requirement", "Checkpoint", "hookimpl", "Report", "Reports", "Outcome", "Status", "Verdict", "ExitCode", "Inspection",
    ],
)  # fmt: skip
def test_what_authors_were_promised_stays(name):
    assert name in ckpt_rules.__all__
