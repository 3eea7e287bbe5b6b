"""torch's `state_dict` conventions: plain values to optimizer, scheduler, scaler and RNG facts."""

from ckpt_rules.readers.state_dicts.parts import config_file, data_loader, optimizer, rng, scaler, scheduler
from ckpt_rules.readers.state_dicts.words import described, shown

__all__ = ["config_file", "data_loader", "described", "optimizer", "rng", "scaler", "scheduler", "shown"]
