"""Which findings the user accepts: the ignores of the file that is named, as far as they have not expired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from ckpt_rules.ruleset.installed import TAG
from ckpt_rules.ruleset.loading import Layer
from ckpt_rules.ruleset.merging import Merge, Spot
from ckpt_rules.ruleset.mistakes import Mistakes, quoted
from ckpt_rules.ruleset.resolved import Ignore


def ignores_of(layers: Sequence[Layer], merge: Merge, mistakes: Mistakes, today: date) -> tuple[Ignore, ...]:
    """The ignores of the last layer that hold on that day; the user is told of those that don't, and of inherited ones."""
    *inherited, named = layers
    for layer in inherited:
        if layer.content.ignore and layer.file != named.file:
            merge.notice(
                f"{Spot(layer.file, layer.mark('ignore')).origin}: this ignore does not hold, for only the file that is "
                f"named can silence findings; move it to {named.file}"
            )
    return tuple(ignore for entry in _entries(named, merge, mistakes) for ignore in _holding(entry, merge, today))


def _entries(layer: Layer, merge: Merge, mistakes: Mistakes) -> Iterator[Ignore]:
    for index, entry in enumerate(layer.content.ignore):
        spot = Spot(layer.file, layer.node.nearest(("ignore", index, "rule")).mark)
        if entry.rule.startswith(TAG):
            mistakes.add(
                spot.file, spot.mark, f"an ignore takes a rule's id or a glob of ids, not {quoted(entry.rule)}"
            )
            continue
        match = merge.find(spot, entry.rule)
        # Findings carry the present id.
        for rule in match.ids if match.renamed else [entry.rule] if match.ids else []:
            yield Ignore(
                rule=rule,
                reason=entry.reason,
                origin=Spot(layer.file, layer.mark("ignore", index)).origin,
                path=entry.path,
                tensor=entry.tensor,
                expires=entry.expires,
            )


def _holding(ignore: Ignore, merge: Merge, today: date) -> Iterator[Ignore]:
    if ignore.expires is None or today <= ignore.expires:
        yield ignore
        return
    merge.notice(
        f"{ignore.origin}: the ignore of {ignore.rule} expired on {ignore.expires} and holds no longer; "
        f"repair what it was about and delete it, or give it a new day"
    )
