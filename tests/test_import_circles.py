"""No module and no plugin imports itself by way of others, imports that only type checkers see included."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

REPO = Path(__file__).resolve().parents[1]
PLUGINS = sorted(p.parent.name for p in (REPO / "plugins").glob("*/__init__.py"))


def refuse_circles(imports: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        raise AssertionError("a circle: " + " <- ".join(error.args[1])) from None


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """What each module imports."""
    graph = grimp.build_graph("ckpt_rules", *PLUGINS, exclude_type_checking_imports=False, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def test_no_module_imports_itself_by_way_of_others(imports):
    refuse_circles(imports)


def test_no_plugin_imports_itself_by_way_of_others(imports):
    packages: dict[str, set[str]] = {}
    for module, found in imports.items():
        package = module.partition(".")[0]
        packages.setdefault(package, set()).update({m.partition(".")[0] for m in found} - {package})
    refuse_circles(packages)
