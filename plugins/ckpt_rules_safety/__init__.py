"""Rules about what a checkpoint would do to whoever loads it: pickles that run code, archives that read in two ways."""

from __future__ import annotations

from ckpt_rules import Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The `pickle/`, `zip/`, `safetensors/` and `config/` families, `state/needs-unsafe-load` and `state/missing-module`."""
    from ckpt_rules_safety.archives import AmbiguousZip, CompressedZip, ZipTraversal
    from ckpt_rules_safety.globals import UnknownGlobal, UnsafeGlobal
    from ckpt_rules_safety.hidden_data import HiddenData
    from ckpt_rules_safety.missing_modules import MissingModule
    from ckpt_rules_safety.pickles import MalformedPickle, NestedPickle, PickleLimit
    from ckpt_rules_safety.remote_code import RemoteCode
    from ckpt_rules_safety.unsafe_load import NeedsUnsafeLoad

    return [
        UnsafeGlobal, UnknownGlobal, NestedPickle, MalformedPickle, PickleLimit,
        AmbiguousZip, ZipTraversal, CompressedZip, HiddenData, NeedsUnsafeLoad, MissingModule, RemoteCode,
    ]  # fmt: skip
