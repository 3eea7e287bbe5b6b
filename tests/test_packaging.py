"""What is declared in pyproject.toml, constraints.txt and the package fits together, and start-up stays cheap.

That a wheel works in a clean environment is proved by .ci/wheel_test.py, which `make check` runs.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
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
    linter = PROJECT["tool"]["importlinter"]
    assert sorted(shipped) == sorted(["ckpt_rules", *(f"plugins/{p}" for p in PLUGINS)])
    assert sorted(declared.values()) == PLUGINS
    assert sorted(linter["root_packages"]) == sorted(PACKAGES)
    assert sorted(PROJECT["tool"]["coverage"]["run"]["source_pkgs"]) == sorted(PACKAGES)
    for contract in linter["contracts"]:
        for key in ("source_modules", "forbidden_modules"):
            named = {m for m in contract.get(key, ()) if m.startswith("ckpt_rules_")}
            assert named in (set(), set(PLUGINS)), f"{contract['name']}: {key}"


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
    asked = [*PROJECT["dependency-groups"]["dev"], *PROJECT["project"]["dependencies"]]
    asked += [name for extra in PROJECT["project"]["optional-dependencies"].values() for name in extra]
    names = {re.match(r"[A-Za-z0-9_.-]+", item)[0].lower() for item in asked} - {"ckpt-rules"}
    assert sorted(names - pinned().keys()) == []
    assert pinned()["torch"] == "2.13.0"


def test_heavy_packages_are_extras():
    core = {re.match(r"[A-Za-z0-9_.-]+", item)[0].lower() for item in PROJECT["project"]["dependencies"]}
    assert core.isdisjoint({"torch", "numpy", "safetensors", "lightning", "transformers"})


def test_the_public_names_are_the_same_in_all_three_places():
    tree = ast.parse(Path(ckpt_rules.__file__).read_text("utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    for_checkers = {(i.module, a.name) for i in block.body if isinstance(i, ast.ImportFrom) for a in i.names}
    at_run_time = {(module, name) for module, names in ckpt_rules._HOMES.items() for name in names}
    assert for_checkers == at_run_time
    assert sorted({name for _, name in at_run_time} | {"__version__"}) == sorted(ckpt_rules.__all__)


@pytest.mark.parametrize("name", ckpt_rules.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(ckpt_rules, name) is not None


def modules_after(program: str, *argv: str) -> set[str]:
    """The modules that a fresh interpreter has loaded when it ends."""
    ending = "import atexit, sys; atexit.register(lambda: print('modules:', *sys.modules))\n"
    done = subprocess.run([sys.executable, "-c", ending + program, *argv], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("modules:")[2].split())


def test_importing_the_package_imports_none_of_its_dependencies():
    heavy = {"pydantic", "pluggy", "typer", "rich", "yaml", "numpy", "torch", "safetensors", "ckpt_rules.engine"}
    assert modules_after("import ckpt_rules") & heavy == set()


@pytest.mark.parametrize("ruleset", ["quick", "default"])
def test_verifying_imports_nothing_heavy(tmp_path, ruleset):
    from ckpt_rules.testing import build_plain_torch

    checkpoint = build_plain_torch(tmp_path / "ck")
    program = "import sys; from ckpt_rules.cli import main; sys.argv[0] = 'ckpt-rules'; main()"
    loaded = modules_after(program, "verify", "--ruleset", ruleset, str(checkpoint.path))
    assert "ckpt_rules.engine" in loaded
    assert (
        loaded & {"torch", "numpy", "safetensors", "fsspec", "jsonschema", "asyncio", "pytest", "rich.table"} == set()
    )
