"""Which optimizer or scheduler wrote a `state_dict`: a guess from the names of what it keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ckpt_rules.facts.training import ParamGroup, ParamState, plain

_BY_STATE: tuple[tuple[frozenset[str], str], ...] = tuple(
    (frozenset(names.split()), kind)
    for names, kind in (
        ("exp_avg_sq_row", "Adafactor"),
        ("row_var", "Adafactor"),
        ("exp_avg exp_avg_sq mu_product", "NAdam"),
        ("exp_avg exp_avg_sq max_exp_avg_sq", "AMSGrad"),
        ("exp_avg exp_avg_sq", "Adam"),
        ("exp_avg exp_inf", "Adamax"),
        ("exp_avg", "Lion"),
        ("square_avg acc_delta", "Adadelta"),
        ("square_avg", "RMSprop"),
        ("sum", "Adagrad"),
        ("prev step_size", "Rprop"),
        ("ax", "ASGD"),
        ("prev_flat_grad", "LBFGS"),
        ("state1", "8-bit optimizer"),
        ("momentum_buffer", "SGD with momentum"),
    )
)
_BY_GROUP = (
    ("ns_steps", "Muon"),
    ("rho", "Adadelta"),
    ("centered", "RMSprop"),
    ("lr_decay", "Adagrad"),
    ("etas", "Rprop"),
    ("lambd", "ASGD"),
    ("beta2_decay", "Adafactor"),
    ("scale_parameter", "Adafactor"),
    ("line_search_fn", "LBFGS"),
    ("momentum_decay", "NAdam"),
    ("amsgrad", "Adam"),
)
_SCHEDULERS = (
    ("num_bad_epochs", "ReduceLROnPlateau"),
    ("anneal_epochs", "SWALR"),
    ("_milestones", "SequentialLR"),
    ("_schedulers", "ChainedScheduler"),
    ("_schedule_phases", "OneCycleLR"),
    ("lr_lambdas", "LambdaLR"),
    ("T_0", "CosineAnnealingWarmRestarts"),
    ("T_max", "CosineAnnealingLR"),
    ("max_lrs", "CyclicLR"),
    ("milestones", "MultiStepLR"),
    ("step_size", "StepLR"),
    ("start_factor", "LinearLR"),
    ("power", "PolynomialLR"),
    ("factor", "ConstantLR"),
    ("gamma", "ExponentialLR"),
)


def optimizer_kind(groups: Sequence[ParamGroup], states: Iterable[ParamState]) -> str:
    """The optimizer's usual name, or `unknown`. Adam and AdamW are distinguished where torch (>= 2.6) records the difference."""
    names = {name for state in states for name in state.tensors}
    options = groups[0].options if groups else {}
    kind = next((kind for marks, kind in _BY_STATE if marks <= names), None)
    if kind == "SGD with momentum":
        return "Muon" if "ns_steps" in options else kind
    kind = kind or _by_group(options)
    return _adam(options) if kind == "Adam" else kind


def _by_group(options: Mapping[str, object]) -> str:
    kind = next((kind for mark, kind in _BY_GROUP if mark in options), None)
    if kind is None and "dampening" in options:
        return "SGD with momentum" if plain(options.get("momentum")) else "SGD"
    return kind or "unknown"


def _adam(options: Mapping[str, object]) -> str:
    decoupled = options.get("decoupled_weight_decay")
    if decoupled is None:
        return "Adam or AdamW"
    if "amsgrad" not in options:
        return "RAdam"
    return "AdamW" if decoupled else "Adam"


def scheduler_kind(values: Mapping[str, object]) -> str:
    """The scheduler's class in torch, or `unknown`."""
    return next((kind for mark, kind in _SCHEDULERS if mark in values), "unknown")
