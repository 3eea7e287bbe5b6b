"""weights/misspelt-tensor: a tensor whose last name is almost one that other modules have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import partial

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, Severity, is_almost
from ckpt_rules_weights.absent_names import absent_names, resumes_by_itself


class MisspeltTensor(Rule):
    """A tensor's name looks like a misspelling of one that its module lacks.

    ## What it checks
    The last part of each name that no other tensor has: whether it differs by a slip (a letter left out, added, changed
    or swapped) from one that at least two others have and its own module lacks, and whether it is what makes that
    module unlike others. `2.weightx` next to `2.bias` is reported if other modules have `weight` and `bias`. Likewise a
    module whose name is another's with something before it (`my_net.2` beside `net.2`), where neither is like any other
    module, and the two together are. Plurals and trailing numbers are ignored, and classes whose tensor names are known
    are not checked: `weights/missing-tensor` reports those.

    ## Why it matters
    A loader finds no tensor of the name that it looks for: a strict load fails with `Missing key(s) in state_dict`, a
    non-strict load leaves the weight randomly initialised.

    ## How to repair
    Rename the tensor, or take the weights from another copy of the save.
    """

    id = "weights/misspelt-tensor"
    severity = Severity.WARNING
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each tensor."""
        files = checkpoint.weights.complete().files
        if _is_known(checkpoint):
            return
        for file in files:
            yield from map(partial(_parted, file.path), _halves(file.tensors))
            for module, name, meant in _slips(file.tensors):
                full = ".".join(filter(None, (module, name)))
                yield Problem(
                    message=f"no other tensor is called '{name}', and {module or 'the model'} has no '{meant}', "
                    "unlike similar modules: a strict load fails on the name, a non-strict load leaves "
                    f"'{meant}' randomly initialised",
                    place=Place(path=file.path, tensor=full),
                    help=f"rename it to '{meant}', or take the weights from another copy of the save",
                    data={"name": full, "meant": meant},
                )


def _parted(path: str, half: tuple[str, str, str]) -> Problem:
    module, meant, name = half
    return Problem(
        message=f"{module} has only {name}, and {meant} has everything that similar modules have except that: a "
        "strict load fails on the name, a non-strict load leaves the tensor randomly initialised",
        place=Place(path=path, tensor=f"{module}.{name}"),
        help=f"rename it to '{meant}.{name}', or take the weights from another copy of the save",
        data={"name": f"{module}.{name}", "meant": f"{meant}.{name}"},
    )


def _is_known(checkpoint: Checkpoint) -> bool:
    try:
        absent_names(checkpoint)
    except FactUnavailable:
        return False
    return not resumes_by_itself(checkpoint)


def _halves(names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Module, the one that is meant, and the tensor's last name, where a module is in two parts for a prefix on one tensor."""
    modules = _by_module(names)
    kinds = Counter(frozenset(held) for held in modules.values())
    for module, held in modules.items():
        leaf, *others = held
        if others or kinds[frozenset(held)] > 1:
            continue
        for meant in (m for m in modules if m and _is_prefixed(module, m)):
            rest = modules[meant]
            if leaf not in rest and kinds[frozenset(rest)] == 1 and kinds[frozenset({leaf, *rest})]:
                yield module, meant, leaf


def _is_prefixed(module: str, meant: str) -> bool:
    """Whether a module's name is another's with a word before it: `my_net.2`, and not `12` for `2`."""
    return module.endswith(meant) and not module[: -len(meant)][-1:].isalnum() and module != meant


def _by_module(names: Iterable[str]) -> dict[str, set[str]]:
    modules: dict[str, set[str]] = defaultdict(set)
    for name in names:
        module, _, leaf = name.rpartition(".")
        modules[module].add(leaf)
    return modules


def _slips(names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Module, last name, and the name that is meant."""
    names = list(names)
    pairs = [name.rpartition(".")[::2] for name in names]
    leaves = Counter(leaf for _, leaf in pairs)
    single = [(module, leaf) for module, leaf in pairs if leaves[leaf] == 1 and not leaf[-1:].isdigit()]
    usual = [leaf for leaf, count in leaves.items() if count > 1]
    likely = [(module, leaf, meant) for module, leaf in single for meant in usual if is_almost(leaf, meant)]
    if not likely:
        return
    modules = _by_module(names)
    kinds = {frozenset(held) for held in modules.values()}
    for module, leaf, meant in likely:
        held = modules[module]
        if meant not in held and frozenset(held - {leaf} | {meant}) in kinds:
            yield module, leaf, meant
