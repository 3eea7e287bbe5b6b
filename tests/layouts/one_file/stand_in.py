"""Modules that have any name as a class of no use: for a library that can't be imported and of which only names are asked.

torchvision from the registry does not import beside a torch for the CPU. timm and ultralytics take transforms, data sets and one
normalisation from it, of which the scripts here run nothing. The one function that does run, `nms`, keeps all boxes. Tests change
files by ultralytics and mmengine without either.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from types import ModuleType

import torch


class _Named(type):
    """Classes of which any attribute is its own name: members of an enumeration that nobody looks into."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return name


class _Anything(ModuleType):
    __path__: list[str] = []
    __version__ = "0.28.0"

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "nms":
            return lambda boxes, scores, threshold: torch.argsort(scores, descending=True)
        made = _Named(name, (torch.nn.Module,), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module of some libraries, for `sys.meta_path`."""

    def __init__(self, *libraries: str) -> None:
        self.libraries = libraries

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in self.libraries:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Anything(spec.name)

    def exec_module(self, module) -> None:
        pass


def stand_in_for_torchvision() -> None:
    """Unless the real one can be imported."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.meta_path.insert(0, StandIn("torchvision"))
