"""Where we and a trainer may disagree on a damaged save, and why that is meant to be so."""

from __future__ import annotations

from typing import NamedTuple


class Allowed(NamedTuple):
    """trainers: by name; kind: of the disagreement; mutants: a pattern for 'file | field | damage'; reason: one sentence.

    said: a pattern for what the trainer raised, the names of what came back otherwise, or our findings.
    """

    trainers: str
    kind: str
    mutants: str
    reason: str
    said: str = ""


_ALL = "trainer accelerate lightning dcp-appstate dcp-flat"
_DCP = "dcp-appstate dcp-flat"
_RAISES, _SILENT, _ALARM = "missed, raises", "missed, silent", "false alarm"
_TENSOR = r"(\| tensors/\S+|state_dict/net\.\S+|\| (app/)?model/\S+|state[./]\S*[./]exp_avg(_sq)?) "
_FLAG = r"[./](amsgrad|foreach|maximize|capturable|differentiable|fused|decoupled_weight_decay) \| "

ALLOWED: tuple[Allowed, ...] = (
    Allowed(
        _ALL,
        _SILENT,
        _TENSOR + r"\| (zeros|nan|one nan|1e30|negative|tenfold|one element|transposed|=.*)$",
        "the default ruleset reads no byte of a tensor; deep finds what isn't finite, and no ruleset knows the right number",
    ),
    Allowed(
        _ALL,
        _SILENT,
        r"\|  \| one byte other$",
        "the byte lies in a tensor, whose checksum deep compares where the format has one",
    ),
    Allowed(
        _ALL,
        _SILENT,
        _TENSOR + r"\| (float16|float64|int64|uint8)$",
        "weights of several dtypes beside each other are usual, and the loader casts them (weights/mixed-dtypes is information)",
    ),
    Allowed(
        _ALL,
        _SILENT,
        r"state[./][^ ]*[./]step \| (int64|uint8|float16|float64|one dimension more|flat|as a list|=.*)$",
        "the counter says the same number in another dtype, or another within the tolerance of optimizer/step-drift",
    ),
    Allowed(
        _ALL,
        _SILENT,
        r"(_step_count \| |(lr_schedulers/0|scheduler\.\w+ \| )\W*half$)",
        "torch only warns by it that scheduler and optimizer are called in the wrong order; no learning rate follows from it",
        said=r"^scheduler/_step_count( then/scheduler/_step_count)?$",
    ),
    Allowed(
        _ALL,
        _SILENT,
        r"[./](T_max|eta_min|warmup_steps) \| |\| (T_max|eta_min) \| ",
        "another length or another minimum of a schedule is as good a schedule: only the run's configuration tells",
    ),
    Allowed(
        _ALL,
        _SILENT,
        _FLAG + r"(null|0|as a number|false|\{\}|\[\]|=.*)$",
        "torch reads it as False, as it was",
        said=r"^(group/\d/\w+ ?)?(then/group/\d/\w+)?$",
    ),
    Allowed(
        _ALL,
        _SILENT,
        r"[./](lr|eps|weight_decay|betas(/\d)?) \| ",
        "another value that such an option may have: only the run's configuration tells",
    ),
    Allowed(
        "dcp-flat",
        _RAISES,
        r"lr_scheduler/_is_initial \| (dropped|renamed|\{\}|\[\])$",
        "schedulers of torch before 2.7 have no such entry, and their saves are sound for that torch",
    ),
    Allowed(
        _ALL,
        _SILENT,
        r"[./](fused|foreach) \| ",
        "another implementation makes the same updates, and rounds them otherwise",
    ),
    Allowed(
        _ALL,
        _SILENT,
        r"lr_lambdas/\d \| ",
        "what the function of a schedule keeps, it alone knows",
    ),
    Allowed(
        "trainer",
        _SILENT,
        r"optimizer\.pt \| state/20 \| ",
        "the last norm alone has no state, as where it is frozen; of a part of a layer we tell",
    ),
    Allowed(
        "trainer",
        _SILENT,
        r"trainer_state\.json \| ((logging_steps|eval_steps|save_steps) \| | \| half$)",
        "how often a run logs and saves is the run's own choice",
    ),
    Allowed(
        "trainer",
        _SILENT,
        r"trainer_state\.json \| (epoch|best_metric|best_global_step|num_train_epochs|max_steps) \| ",
        "the Trainer computes it again, or it is a value like any other",
        said=r"^(then/)?counters/(epoch|best_metric|best_global_step)",
    ),
    Allowed(
        "trainer",
        _SILENT,
        r"trainer_state\.json \| log_history",
        "it is the record of steps that were made, which no resume reads",
        said=r"^(then/)?counters/log",
    ),
    Allowed(
        "trainer accelerate",
        _SILENT,
        r"(rng_state\.pth|random_states_0\.pkl) \| [^ ]*(python|random_state|numpy|numpy_random_seed|cpu|torch_manual_seed)\S* \| ",
        "it is a state of its generator like any other: every form that a generator takes is as random as the right one",
        said=r"^((then/)?rng/\w+ ?)+$",
    ),
    Allowed(
        "accelerate",
        _RAISES,
        r"^custom_checkpoint_0\.pkl \| ",
        "which keys an object needs that a script registered, and how far it may count, only the script knows",
    ),
    Allowed(
        "accelerate",
        _SILENT,
        r"^custom_checkpoint_0\.pkl \| ",
        "what an object counts that a script registered, and how far, only the script knows",
    ),
    Allowed(
        _DCP,
        _RAISES,
        r"\| (app/step|train_state(/step)?) \| ",
        "which entries a script's own object asks for, and of which kind, only the script knows",
    ),
    Allowed(
        _DCP,
        _SILENT,
        r"\| (app/step|train_state/step) \| ",
        "what a script's step counts, it alone knows; optimizer/step-drift tells of 20 updates and more",
    ),
    Allowed(
        _DCP,
        _RAISES,
        r"^entries \| (app|app/model|model|app/optim|optimizer) \| (renamed|as a list|\[0\]|=.*)$",
        "the names under which a script saves its model and the rest are the script's own",
    ),
    Allowed(
        "dcp-appstate",
        _RAISES,
        r"^entries \| app/optim \| (dropped|renamed|\{\})$",
        "scripts save a model and a step alone as well, and such a save is whole; of an empty dictionary torch writes nothing",
    ),
    Allowed(
        "trainer",
        _ALARM,
        r"^(training_args\.bin|generation_config\.json) \|  \| ",
        "the file is damaged, as its other readers will find, though the Trainer resumes without it: a warning",
    ),
    Allowed(
        "trainer",
        _ALARM,
        r"^config\.json \| ",
        "a script that builds its model from the save reads it; the one here builds its model by itself",
    ),
    Allowed(
        _ALL,
        _ALARM,
        r"\|  \| one byte other$",
        "the file is damaged; torch passes over this byte, and other readers of zip files or of this format do not",
        said=r"zip/|chunk-coverage|broken",
    ),
    Allowed(
        "trainer",
        _ALARM,
        r"^trainer_state\.json \| (max_steps|num_train_epochs|best_model_checkpoint|best_metric|best_global_step) \| ",
        "the Trainer reads it when training ends, evaluates or saves, if at all, and other readers do: it is no such value",
    ),
    Allowed(
        _ALL,
        _ALARM,
        r"",
        "a boolean in the place of a number counts as 0 or 1, and no optimizer and no scheduler writes one",
        said=r"is (False|True), (which is not a number|where a number belongs|expected a number)",
    ),
    Allowed(
        _DCP,
        _ALARM,
        r"^\.metadata \| .*\(class\)",
        "an object of another class, or of none, has the attributes that a load asks for by chance",
    ),
    Allowed(
        "dcp-flat",
        _ALARM,
        r"^entries \| optimizer/param_groups\.",
        "of a group whose options were saved by parameter torch reads those of its first one, and the save does not say which it is",
    ),
    Allowed(
        "dcp-appstate",
        _ALARM,
        r"^entries \| app/optim/param_groups(/\d/params.*)? \| ",
        "set_state_dict finds a group by any of its parameters that is still listed; the save contradicts itself all the same",
    ),
    Allowed(
        _DCP,
        _ALARM,
        r"^\.metadata \| ",
        "the damage makes the pickle name what no save of DCP names, which is for a person to judge",
        said=r"^pickle/unknown-global",
    ),
    Allowed(
        _DCP,
        _ALARM,
        r"^\.metadata \| storage_data/",
        "entries that overlap or reach past the end of the file are read up to the end of their own zip",
        said=r"^ranks/chunk-coverage",
    ),
    Allowed(
        "accelerate dcp-flat",
        _SILENT,
        r"last_epoch \| (\+1|-1|doubled|tenfold|=.*)$",
        "scripts step a scheduler before or after they save, for each batch or for each process: a step more or less, and "
        "up to 64 times the updates, may be right",
    ),
    Allowed(
        "trainer",
        _SILENT,
        r"optimizer\.pt \| (state/(0|1[6-9]) \| |state \| half$)",
        "the embedding or one norm alone has no state, or as much of two layers as parts that were frozen or unused: by "
        "their shapes they may be modules outside of the layers, which no batch need have used",
    ),
    Allowed(
        "lightning",
        _RAISES,
        r"state_dict \| one key more$",
        "a module's hooks may add entries of any kind to its state_dict",
    ),
    Allowed(
        "lightning",
        _SILENT,
        r"(epoch_progress/(total|current)/\w+|batch_progress/(current/completed|is_last_batch)) \| ",
        "a file written as an epoch or a batch begins or ends, or where training stops within an epoch, has such counters",
    ),
    Allowed(
        "lightning",
        _ALARM,
        r"\| loops/fit_loop/\S*progress",
        "the counters contradict each other, or are not counts; here Lightning sets them again before it counts on",
        said=r"^progress/counters-disagree",
    ),
    Allowed(
        _ALL,
        _ALARM,
        r"(_get_lr_called_within_step|_is_initial|numpy(_random_seed)?/4|lr_lambdas|_batches_that_stepped) \| ",
        "torch or numpy passes over what it is, and no writer writes anything like it",
    ),
    Allowed(
        _DCP,
        _ALARM,
        r"^\.metadata \| state_dict_metadata/\S*/chunks",
        "the chunk contradicts the size of its own tensor, and a load of that very size copies what overlaps",
    ),
    Allowed(
        "dcp-flat",
        _ALARM,
        r"^\.metadata \| storage_data/optimizer\.param_groups\.",
        "of a group whose options were saved by parameter torch reads those of its first one, and the save does not say which it is",
    ),
    Allowed(
        "trainer",
        _ALARM,
        r"trainer_state\.json \| stateful_callbacks",
        "the run stops at its next save, before which the comparison ends",
        said=r"^state/refused-field",
    ),
    Allowed(
        _DCP,
        _RAISES,
        r"^__\d+_\d+\.distcp \|  \| one byte other$",
        "the byte lies in a chunk, of which the default ruleset reads none; deep compares its checksum",
    ),
)
