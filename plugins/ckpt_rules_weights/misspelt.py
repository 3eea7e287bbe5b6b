"""weights/misspelt-tensor: a tensor whose last name is almost one that other modules have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, Severity, is_almost
from ckpt_rules_weights.absent_names import absent_names, resumes_by_itself


class MisspeltTensor(Rule):
    """A tensor's name is almost that of a tensor that its module lacks.

    ## What it checks
    The last part of each name that no other tensor has: whether it differs by a slip (a letter left out, added, changed or
    swapped) from one that at least two others have and its own module lacks, and whether it is what makes that module unlike
    others. `2.weightx` beside `2.bias` is told where other modules hold `weight` and `bias`. Plurals and numbers at the end are
    left alone, and so is a class whose tensors are known by name: `weights/missing-tensor` reports those.

    ## Why it matters
    A loader finds no tensor of the name that it looks for: a strict load stops with `Missing key(s) in state_dict`, any other
    leaves random numbers in its place.

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
            for module, name, meant in _slips(file.tensors):
                full = ".".join(filter(None, (module, name)))
                yield Problem(
                    message=f"no other tensor is called '{name}', and {module or 'the model'} has no '{meant}', as other modules "
                    "have: a strict load stops at the name, any other leaves random numbers in its place",
                    place=Place(path=file.path, tensor=full),
                    help=f"rename it to '{meant}', or take the weights from another copy of the save",
                    data={"name": full, "meant": meant},
                )


def _is_known(checkpoint: Checkpoint) -> bool:
    try:
        absent_names(checkpoint)
    except FactUnavailable:
        return False
    return not resumes_by_itself(checkpoint)


def _slips(names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Module, last name, and the name that is meant."""
    pairs = [name.rpartition(".")[::2] for name in names]
    leaves = Counter(leaf for _, leaf in pairs)
    single = [(module, leaf) for module, leaf in pairs if leaves[leaf] == 1 and not leaf[-1:].isdigit()]
    usual = [leaf for leaf, count in leaves.items() if count > 1]
    likely = [(module, leaf, meant) for module, leaf in single for meant in usual if is_almost(leaf, meant)]
    if not likely:
        return
    modules: dict[str, set[str]] = defaultdict(set)
    for module, leaf in pairs:
        modules[module].add(leaf)
    kinds = {frozenset(held) for held in modules.values()}
    for module, leaf, meant in likely:
        held = modules[module]
        if meant not in held and frozenset(held - {leaf} | {meant}) in kinds:
            yield module, leaf, meant
