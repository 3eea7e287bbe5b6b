"""The flat namespace over private modules: what `ckpt_rules` exports, that it is one list, and that it stays so."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module

import pytest

import ckpt_rules


def type_checking_imports() -> dict[str, str]:
    """Name -> module, of the imports that only type checkers see."""
    tree = ast.parse(inspect.getsource(ckpt_rules))
    (block,) = [n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        if node.module == "typing":
            continue
        for alias in node.names:
            # `from package import module` exports the module itself.
            found[alias.name] = node.module
    return found


def test_table_type_checkers_and_all_agree():
    names = set(ckpt_rules._HOME_OF)
    assert names == set(type_checking_imports())
    assert names | {"__version__"} == set(ckpt_rules.__all__)
    assert ckpt_rules.__all__ == sorted(ckpt_rules.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert dir(ckpt_rules) == sorted(ckpt_rules.__all__)


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
