"""What is declared in pyproject.toml, constraints.txt and the package fits together.

That a wheel works in a clean environment is proved by .ci/wheel_test.py, which `make check` runs.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import ckpt_rules

REPO = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))
PLUGINS = sorted(p.name for p in (REPO / "plugins").iterdir() if (p / "__init__.py").exists())
PACKAGES = ["ckpt_rules", *PLUGINS]


def pinned() -> dict[str, str]:
    lines = (REPO / "constraints.txt").read_text("utf-8").splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


def test_every_plugin_package_is_shipped_declared_and_watched():
    shipped = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    declared = PROJECT["project"]["entry-points"]["ckpt_rules"]
    assert sorted(shipped) == sorted(["ckpt_rules", *(f"plugins/{p}" for p in PLUGINS)])
    assert sorted(declared.values()) == PLUGINS
    assert sorted(PROJECT["tool"]["importlinter"]["root_packages"]) == sorted(PACKAGES)
    assert sorted(PROJECT["tool"]["coverage"]["run"]["source_pkgs"]) == sorted(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed(package):
    home = REPO / package if package == "ckpt_rules" else REPO / "plugins" / package
    assert (home / "py.typed").exists()


def test_entry_points_are_installed_as_declared():
    """A change in pyproject.toml reaches an editable installation only with `make install`."""
    installed = {e.name: e.value for e in entry_points(group="ckpt_rules") if e.dist and e.dist.name == "ckpt-rules"}
    assert installed == PROJECT["project"]["entry-points"]["ckpt_rules"]


def test_the_version_is_the_one_in_the_package_the_metadata_and_the_changelog():
    assert version("ckpt-rules") == ckpt_rules.__version__
    assert f"## [{ckpt_rules.__version__}]" in (REPO / "CHANGELOG.md").read_text("utf-8")


def test_what_is_installed_for_development_is_pinned():
    groups = [item for group in PROJECT["dependency-groups"].values() for item in group if isinstance(item, str)]
    asked = [*groups, *PROJECT["project"]["dependencies"]]
    asked += [name for extra in PROJECT["project"]["optional-dependencies"].values() for name in extra]
    names = {re.match(r"[A-Za-z0-9_.-]+", item)[0].lower() for item in asked} - {"ckpt-rules"}
    assert sorted(names - pinned().keys()) == []
    assert pinned()["torch"] == "2.13.0"


def test_heavy_packages_are_extras():
    core = {re.match(r"[A-Za-z0-9_.-]+", item)[0].lower() for item in PROJECT["project"]["dependencies"]}
    assert core.isdisjoint({"torch", "safetensors", "lightning", "transformers"})
