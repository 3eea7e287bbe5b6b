"""Whether every state belongs to a parameter of exactly one group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ckpt_rules import OptimizerState, Place, Problem
from ckpt_rules_training.params.sides import HELP, place_of
from ckpt_rules_training.words import count, inside, listed


def stray_states(optimizer: OptimizerState) -> Iterator[Problem]:
    """States of what is not a parameter of any group."""
    known = {p for g in optimizer.groups for p in g.params}
    strays = [k for k, s in optimizer.states.items() if k not in known and not s.odd]
    if strays:
        many = len(strays) > 1
        yield Problem(
            message=f"the state has {'entries' if many else 'an entry'} for {listed(strays)}, which {'are not parameters' if many else 'is not a parameter'} "
            f"of any of its {count(len(optimizer.groups), 'group')}",
            place=place_of(optimizer, strays[0]),
            help=HELP,
            data={"parameters": [str(s) for s in strays[:100]], "count": len(strays)},
        )


def shared_parameters(optimizer: OptimizerState) -> Iterator[Problem]:
    """Parameters that stand in the groups more than once."""
    owners = Counter(p for g in optimizer.groups for p in g.params)
    twice = [p for p, n in owners.items() if n > 1]
    if twice:
        yield Problem(
            message=f"{count(len(twice), 'parameter')} ({listed(twice)}) appear{'s' if len(twice) == 1 else ''} more than once in param_groups",
            place=Place(path=optimizer.path, key=inside(optimizer.key, "param_groups")),
            help=HELP,
            data={"parameters": [str(p) for p in twice[:100]]},
        )
