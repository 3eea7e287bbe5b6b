"""YAML rulesets: which rules apply, how severe they are, with what options."""
