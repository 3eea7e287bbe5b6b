"""Turns what the layers chose into rules with their options, validated by each rule's own model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from ckpt_rules.plugin import crash_of
from ckpt_rules.ruleset.merging import Choice, Spot
from ckpt_rules.ruleset.mistakes import Mark
from ckpt_rules.ruleset.resolved import Origin, SelectedRule
from ckpt_rules.ruleset.wording import mistake_in_option

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from ckpt_rules.rule import Rule
    from ckpt_rules.ruleset.merging import Merge
    from ckpt_rules.ruleset.mistakes import Mistakes


class Builder:
    """Builds the rules that a merge chose or wrote options for; mistakes in options are noted at once."""

    def __init__(self, merge: Merge, mistakes: Mistakes) -> None:
        self._merge = merge
        self._mistakes = mistakes
        self._built = {
            i: self._build(i, c, c.selected_by) for i, c in merge.choices.items() if c.selected_by or c.options
        }

    def selected(self, rule_id: str, origin: Origin) -> SelectedRule | None:
        """One rule that will run; None where its options don't fit it."""
        choice = self._merge.choices.get(rule_id, Choice())
        if rule_id not in self._built:
            self._built[rule_id] = self._build(rule_id, choice, Spot(origin.file, Mark(0, 0)))
        rule = self._built[rule_id]
        plugin = self._merge.installed.plugins.rules[rule_id][1].name
        decided = {what: spot.origin for what, spot in choice.decided.items()}
        return SelectedRule(rule, plugin, choice.severity, origin, decided) if rule else None

    def _build(self, rule_id: str, choice: Choice, fallback: Spot | None) -> Rule | None:
        return build_rule(self._merge.installed.rules[rule_id], choice, fallback, self._mistakes)


def build_rule(rule: type[Rule], choice: Choice, fallback: Spot | None, mistakes: Mistakes) -> Rule | None:
    """The rule with its options; None, and a mistake in the line of each wrong option, where they don't fit it.

    `fallback` is where the rule was selected: the place of what is wrong without anybody having written it.
    """
    if not choice.options and _needs_no_validation(rule):
        # Ten times faster, because pydantic then never builds the model's validator.
        return rule.model_construct()
    place = choice.written or fallback
    try:
        return rule.model_validate({name: node.plain() for name, node in choice.options.items()}, strict=False)
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False):
            _note(rule, choice, place, error, mistakes)
    except BaseException as error:  # noqa: BLE001 - around a rule: its validators are a plugin's code
        crash = crash_of(error)
        if place:
            message = f"{rule.id} crashed when it was given its options: {crash.type}: {crash.message}"
            mistakes.add(place.file, place.mark, message)
    return None


def _needs_no_validation(rule: type[Rule]) -> bool:
    checked = rule.__pydantic_decorators__
    return not (
        checked.model_validators
        or checked.field_validators
        or checked.root_validators
        or rule.model_config.get("validate_default")
        or any(f.is_required() or f.validate_default for f in rule.model_fields.values())
    )


def _note(rule: type[Rule], choice: Choice, place: Spot | None, error: ErrorDetails, mistakes: Mistakes) -> None:
    message = mistake_in_option(rule.id, error, rule.model_fields)
    option = str(error["loc"][0]) if error["loc"] else ""
    if option in choice.options:
        node = choice.options[option].nearest(error["loc"][1:])
        at_key = error["type"] == "extra_forbidden" or node.value is None
        mistakes.add(choice.decided[option].file, node.key if at_key else node.mark, message)
    elif place:
        mistakes.add(place.file, place.mark, message)
