"""What trainers and libraries call things: one table for each kind of name, with who writes it."""

from ckpt_rules.conventions import (
    distributed,
    pointers,
    saves,
    state_dict_keys,
    state_files,
    suffixes,
    weight_files,
    wrappers,
)

__all__ = ["distributed", "pointers", "saves", "state_dict_keys", "state_files", "suffixes", "weight_files", "wrappers"]
