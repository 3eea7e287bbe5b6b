"""From a ruleset's name to what the engine runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from ckpt_rules.errors import UsageError
from ckpt_rules.limits import Limits
from ckpt_rules.rule import Reads
from ckpt_rules.ruleset.building import Builder
from ckpt_rules.ruleset.ignoring import ignores_of
from ckpt_rules.ruleset.installed import Installed
from ckpt_rules.ruleset.loading import Layer, load
from ckpt_rules.ruleset.merging import Choice, Merge
from ckpt_rules.ruleset.mistakes import Mistakes
from ckpt_rules.ruleset.model import Purpose
from ckpt_rules.ruleset.requirements import check_required, with_local_files
from ckpt_rules.ruleset.resolved import Origin, ResolvedRuleset
from ckpt_rules.ruleset.sources import UnknownSourceError, builtin_rulesets, find_ruleset

if TYPE_CHECKING:
    from ckpt_rules.plugins import Plugins

SELECT, EXCLUDE, PREVIOUS = Origin("--select"), Origin("--exclude"), Origin("--previous")


def resolve(  # noqa: PLR0913 - one keyword for each flag of the command
    name: str | os.PathLike[str],
    plugins: Plugins,
    *,
    strict: bool | None = None,
    select: Sequence[str] = (),
    exclude: Sequence[str] = (),
    compare: bool = False,
    today: date,
) -> ResolvedRuleset:
    """The rules that a ruleset selects, with severities and options, and the ignores that hold.

    name:    a built-in name, `plugin:name`, or a path: anything with a separator, ending in .yaml or .yml, or a Path
    strict:  outranks what the files say, unless None
    select:  ids, globs of ids or `tag:…`: of all installed rules, only these run, with the ruleset's severities and
             options
    exclude: the same; these do not run
    compare: whether rules that compare with an earlier save run where they read no bytes, though no file selects them
    today:   an ignore that expires before it does not hold

    Raises `RulesetError` with everything that is wrong in the files, and `UsageError` for a `name`, `select` or
    `exclude` that nobody has.
    """
    mistakes = Mistakes()
    layers, merge = _merged(name, plugins, mistakes)
    builder = Builder(merge, mistakes)
    ignores = ignores_of(layers, merge, mistakes, today)
    _refuse_nothing(layers[-1], merge, mistakes)
    mistakes.raise_any()
    chosen = _narrowed(merge, select, exclude, _comparing(merge) if compare else ())
    selected = [builder.selected(i, origin) for i, origin in sorted(chosen.items())]
    mistakes.raise_any()
    return ResolvedRuleset(
        name=os.fsdecode(name),
        description=layers[-1].content.description,
        strict=_strict(layers) if strict is None else strict,
        rules=tuple(s for s in selected if s),
        ignores=ignores,
        plugins=merge.installed.plugins,
        notices=tuple(merge.notices),
        limits=_limits(layers),
        purpose=_purpose(layers),
        layout=_layout(layers),
        narrowed=any(c.selected_by and i not in chosen for i, c in merge.choices.items()),
    )


def _merged(name: str | os.PathLike[str], plugins: Plugins, mistakes: Mistakes) -> tuple[tuple[Layer, ...], Merge]:
    loaded = load(_path_of(name, plugins), plugins, mistakes)
    if not loaded.layers:
        mistakes.raise_any()
    check_required(loaded.layers, plugins, mistakes)
    plugins, complete = with_local_files(loaded.layers, plugins, mistakes)
    merge = Merge(Installed(plugins, complete=complete and loaded.whole), mistakes)
    for layer in loaded.layers:
        merge.apply(layer)
    return loaded.layers, merge


def _path_of(name: str | os.PathLike[str], plugins: Plugins) -> Path:
    if not isinstance(name, str):
        return Path(os.fsdecode(name))
    try:
        return find_ruleset(name, plugins)
    except UnknownSourceError as error:
        raise UsageError(str(error)) from None


def _strict(layers: Sequence[Layer]) -> bool:
    return next((x.content.strict for x in reversed(layers) if "strict" in x.content.model_fields_set), False)


def _purpose(layers: Sequence[Layer]) -> str:
    given = (x.content.purpose for x in reversed(layers) if "purpose" in x.content.model_fields_set)
    return next(given, Purpose.RESUME).value


def _layout(layers: Sequence[Layer]) -> str | None:
    return next((x.content.layout for x in reversed(layers) if "layout" in x.content.model_fields_set), None)


def _limits(layers: Sequence[Layer]) -> Limits:
    given = [layer.content.limits for layer in layers]
    return Limits(**{name: getattr(limits, name) for limits in given for name in limits.model_fields_set})


def _refuse_nothing(named: Layer, merge: Merge, mistakes: Mistakes) -> None:
    """A file that selects nothing is a mistake; not so where the rules that it selects did not come along."""
    if not any(c.selected_by for c in merge.choices.values()) and not merge.installed.partial and not mistakes:
        mistakes.add(named.file, None, "it selects no rule; write `extends: [default]`, or name rules under select")


def _comparing(merge: Merge) -> list[str]:
    """Rules that compare with an earlier save at no great cost, and that no file of the user's has left out.

    Built-in rulesets leave some out to save time: whoever names an earlier save wants it compared.
    """
    built_in = {os.fspath(path) for path in builtin_rulesets().values()}
    rules = merge.installed.plugins.rules.items()
    cheap = [i for i, (rule, _) in rules if rule.compares and rule.reads is not Reads.BYTES]
    return [i for i in cheap if (choice := merge.choices.get(i)) is None or _left_out_by(choice, built_in)]


def _left_out_by(choice: Choice, files: set[str]) -> bool:
    return choice.excluded_by is not None and choice.excluded_by.file in files


def _narrowed(
    merge: Merge, select: Sequence[str], exclude: Sequence[str], comparing: Sequence[str]
) -> dict[str, Origin]:
    """The rules to run, each with who selected it."""
    chosen = {i: c.selected_by.origin for i, c in merge.choices.items() if c.selected_by}
    chosen |= dict.fromkeys(comparing, PREVIOUS)
    if select:
        chosen = {i: SELECT for pattern in select for i in merge.find_asked(SELECT, pattern)}
    for pattern in exclude:
        for rule_id in merge.find_asked(EXCLUDE, pattern):
            chosen.pop(rule_id, None)
    return chosen
