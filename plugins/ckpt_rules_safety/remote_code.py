"""config/remote-code: text in a checkpoint that names code to be run when it is loaded."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from ckpt_rules import Checkpoint, Place, Problem, Rule, Severity
from ckpt_rules_safety.code_by_place import named_by_place
from ckpt_rules_safety.code_in_archives import named_in_archives
from ckpt_rules_safety.code_in_hdf5 import named_in_hdf5
from ckpt_rules_safety.code_in_hyper_parameters import named_in_hyper_parameters
from ckpt_rules_safety.code_in_json import named_in_json
from ckpt_rules_safety.code_in_yaml import named_in_yaml
from ckpt_rules_safety.named_code import NamedCode

_SHOWN = 20


class RemoteCode(Rule):
    """A configuration names code that loading the checkpoint would import or run.

    ## What it checks
    `auto_map` and `custom_pipelines` of transformers; attention and expert kernels that come from a repository; the classes
    in the `modules.json` and the activation functions of sentence-transformers; the `auto_mapping` of PEFT; components of
    diffusers whose code lies in the checkpoint; `_instantiator` and `_class_path` among Lightning's hyper-parameters;
    Lambda layers, and modules that are not Keras's own, in a Keras configuration, in HDF5 files too; names of chat templates
    that lead out of the directory; in YAML the tags of Python's, and in YAML and JSON a `_target_` or `class_path`, that name
    what is known to run code; `custom_generate/generate.py`, which transformers runs instead of its own generation. What the
    libraries name of themselves is not a finding.

    ## Why it matters
    Such text acts like a program: `trust_remote_code=True`, and older versions of some libraries without it, import and
    run what it names, with your permissions. Whoever can change a JSON file then decides what your machine runs.

    ## How to repair
    Read the code that is named, pin it to a revision that you have read, and keep a copy of your own. Put names of your
    own project into the option `allow`. If nobody needs the entry, delete it.
    """

    id = "config/remote-code"
    severity = Severity.WARNING
    tags = frozenset({"safety", "load"})

    allow: tuple[str, ...] = Field(
        default=(),
        description="Names of code that are not a finding: a module, with all that lies below it, or a repository.",
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each entry, 20 at the most in one file."""
        shown: dict[str, int] = {}
        for found in _all(checkpoint):
            if self._is_allowed(found.code):
                continue
            shown[found.path] = shown.get(found.path, 0) + 1
            if shown[found.path] <= _SHOWN:
                yield _problem(found)

    def _is_allowed(self, code: str) -> bool:
        return any(code == name or code.startswith((f"{name}.", f"{name}--")) for name in self.allow)


def _all(checkpoint: Checkpoint) -> Iterator[NamedCode]:
    yield from named_in_json(checkpoint)
    yield from named_in_archives(checkpoint)
    yield from named_in_hdf5(checkpoint)
    yield from named_in_hyper_parameters(checkpoint)
    yield from named_in_yaml(checkpoint)
    yield from named_by_place(checkpoint)


def _problem(found: NamedCode) -> Problem:
    return Problem(
        message=f"{found.key} is {found.code!r:.100}: {found.does}",
        place=Place(path=found.path, key=found.key),
        help="read that code before you load this with trust_remote_code or an older library; if it is yours, name it in "
        "the rule's option `allow`",
        data={"code": found.code},
    )
