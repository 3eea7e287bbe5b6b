"""Rules about the training state of a checkpoint: counters, optimizer, scheduler, scaler, RNG."""

from __future__ import annotations

from ckpt_rules import Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The `state/`, `progress/`, `optimizer/`, `scheduler/`, `scaler/`, `rng/` and `ema/` families."""
    from ckpt_rules_training.ema import EmaMissing
    from ckpt_rules_training.empty_state import EmptyOptimizerState
    from ckpt_rules_training.missing_parts import OptimizerMissing, RngMissing, ScalerMissing, SchedulerMissing
    from ckpt_rules_training.optimizer_holes import IncompleteState
    from ckpt_rules_training.optimizer_params import ParamMismatch
    from ckpt_rules_training.optimizer_steps import StepDrift, UnevenSteps
    from ckpt_rules_training.optimizer_values import BadHyperparameter, MomentDtype
    from ckpt_rules_training.progress_counters import CountersDisagree, Finished
    from ckpt_rules_training.progress_dataloader import DataLoaderPosition
    from ckpt_rules_training.progress_invalid import InvalidProgress
    from ckpt_rules_training.progress_name import NameMismatch
    from ckpt_rules_training.rng_state import BadRngState
    from ckpt_rules_training.scaler_collapsed import CollapsedScaler
    from ckpt_rules_training.scheduler_base import BaseLrMismatch
    from ckpt_rules_training.scheduler_fields import BadSchedulerField
    from ckpt_rules_training.scheduler_lr import Exhausted, LrMismatch
    from ckpt_rules_training.scheduler_steps import StepMismatch
    from ckpt_rules_training.state_fields import MissingField, MisspelledField
    from ckpt_rules_training.state_unreadable import UnreadableState

    return [
        UnreadableState, MissingField, MisspelledField,
        InvalidProgress, CountersDisagree, NameMismatch, DataLoaderPosition, Finished,
        OptimizerMissing, EmptyOptimizerState, StepDrift, UnevenSteps, ParamMismatch, IncompleteState, BadHyperparameter, MomentDtype,
        SchedulerMissing, StepMismatch, LrMismatch, BaseLrMismatch, BadSchedulerField, Exhausted,
        ScalerMissing, CollapsedScaler, RngMissing, BadRngState, EmaMissing,
    ]  # fmt: skip
