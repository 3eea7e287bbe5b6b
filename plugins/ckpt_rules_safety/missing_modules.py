"""state/missing-module: classes that a load would import, and that are not installed here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, Severity
from ckpt_rules_safety.unsafe_load import files_of_a_resume

_NEW_NUMPY = "numpy._core"
_OLD_NAMES = frozenset({"__builtin__", "copy_reg", "__main__", "__torch__"})


class MissingModule(Rule):
    """A file needed to resume imports a module that is not installed here.

    ## What it checks
    The top-level package of every global in the training state and the weights: whether Python would find it, which is looked
    up without importing anything; and `numpy._core`, which NumPy before 2 does not have. Information, because a checkpoint is
    often verified on another machine than the one that trains; on one without torch nothing is said.

    ## Why it matters
    `torch.load` stops with ModuleNotFoundError where the checkpoint was saved by code that is not on the path: classes of the
    project, pickled with their module's name.

    ## How to repair
    Run in the environment that trains, with the project's code on the path. Better, save plain values instead of objects.
    """

    id = "state/missing-module"
    severity = Severity.INFO
    tags = frozenset({"resume", "load"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file and package."""
        if not _is_found("torch"):
            raise FactUnavailable("torch is not installed here, so this is not where training is resumed")
        for path in files_of_a_resume(checkpoint):
            asked = {g.module for g in checkpoint.files.torch_file(path).globals if not g.reached}
            absent = {m.partition(".")[0]: m for m in sorted(asked) if not _is_found(m.partition(".")[0])}
            for package, module in absent.items():
                yield _problem(path, module, f"the package {package} is not installed here")
            if any(m.startswith(_NEW_NUMPY) for m in asked) and _old_numpy():
                yield _problem(path, _NEW_NUMPY, f"NumPy {_old_numpy()} is installed here, which does not have it")


def _problem(path: str, module: str, why: str) -> Problem:
    return Problem(
        message=f"{path} imports {module}, but {why}: torch.load stops with ModuleNotFoundError",
        place=Place(path=path),
        help="resume in the environment that trains, with the project's code on the path",
        data={"module": module},
    )


@cache
def _is_found(package: str) -> bool:
    if package in _OLD_NAMES or not package.isidentifier():
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


@cache
def _old_numpy() -> str | None:
    try:
        found = version("numpy")
    except PackageNotFoundError:
        return None
    return found if found.startswith("1.") else None
