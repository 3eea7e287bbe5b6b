"""The Trainer's layout: recognising it, and where its facts are found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

from ckpt_rules import (
    TO_RESUME_OR_LOAD,
    Checkpoint,
    Contradiction,
    FactUnavailable,
    Field,
    Layout,
    Master,
    OptimizerState,
    Pointer,
    Progress,
    RankFiles,
    Ranks,
    Recorded,
    Requirement,
    RngState,
    ScalerState,
    SchedulerState,
    Severity,
    Sign,
    Signature,
    Tells,
    TensorInfo,
    TrainingState,
    Weights,
    conventions,
    dictionary,
    find_weights,
    own_name,
    state_dicts,
)
from ckpt_rules_dcp.public import Fsdp
from ckpt_rules_deepspeed.public import Zero, pointers_of
from ckpt_rules_peft.public import CONFIG, WEIGHTS, adapters, behind, configuration, inside
from ckpt_rules_transformers import progress
from ckpt_rules_transformers.arguments import FILE as ARGUMENTS
from ckpt_rules_transformers.arguments import arguments
from ckpt_rules_transformers.modules import module_requirements, modules, weights_of_modules
from ckpt_rules_transformers.sharded import SCHEDULER as _SCHEDULER
from ckpt_rules_transformers.sharded import STATE, backend, fsdp_parts, is_sharded, requirements_of_sharded, zero_saves

_OPTIMIZER, _SCALER = conventions.state_files.TRAINER_OPTIMIZER, conventions.state_files.SCALER
_RNG = conventions.state_files.TRAINER_RNG
_NAME = re.compile(r"checkpoint-(\d+)")
_SHARD = conventions.weight_files.TRANSFORMERS_SHARD
_GENERATORS = {"python": "python", "numpy": "numpy", "cpu": "torch"}
_WHOLE = conventions.weight_files.TRANSFORMERS
_HEAD_NBYTES = 24
_KEYS = frozenset(
    {
        "global_step", "log_history", "max_steps", "num_train_epochs", "is_world_process_zero", "is_local_process_zero",
        "best_metric", "best_model_checkpoint", "total_flos", "train_batch_size", "logging_steps", "save_steps",
        "stateful_callbacks", "trial_params",
    }
)  # fmt: skip
_FIELDS = (
    Field(
        "global_step",
        ("global_step",),
        Severity.ERROR,
        "the Trainer then counts from zero, and trains all batches again",
    ),
    Field("total_steps", ("max_steps",)),
    Field("total_epochs", ("num_train_epochs",)),
)


def _saves_below(checkpoint: Checkpoint) -> list[str]:
    """The saves in a run's own directory, in which the final model lies."""
    return [] if _has(checkpoint, _OPTIMIZER) else [e.path for e in checkpoint.listing if _NAME.fullmatch(e.path)]


def _own_state(checkpoint: Checkpoint) -> list[str]:
    """trainer_state.json, unless it is another trainer's in a directory that is not named like the Trainer's."""
    there = checkpoint.listing.get(STATE) is not None
    own = there and (_NAME.fullmatch(own_name(checkpoint)) or not checkpoint.fact(_is_foreign))
    return [STATE] if own else []


_PARTS = tuple(
    Sign.file(name, tells=Tells.SHARED, most=9)
    for name in (_OPTIMIZER, re.compile(_RNG.pattern), _SCHEDULER, ARGUMENTS)
)
_RUN = Sign(_saves_below)


class TransformersTrainer(Layout):
    """`checkpoint-N`: trainer_state.json, written last, beside optimizer.pt, scheduler.pt and rng_state.pth."""

    name = "transformers-trainer"
    title = "transformers Trainer checkpoint"
    loads_as_configured = True
    signatures = (
        Signature(must=(Sign(_own_state),), may=_PARTS, never=(_RUN,)),
        Signature(must=(Sign.file(STATE),), may=_PARTS, never=(_RUN,), least=2),
        Signature(may=(*_PARTS, Sign.named(_NAME, "the name checkpoint-N")), never=(_RUN,), least=2),
    )
    own_loader: ClassVar[tuple[str, ...]] = ("rng_state*.pth", *Fsdp.own_loader, *Zero.own_loader)
    unread: ClassVar[tuple[str, ...]] = (ARGUMENTS, "generation_config.json")

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """What commits the save; and optimizer and scheduler, which are loaded together or not at all."""
        committed = Requirement(
            (STATE,),
            f"the Trainer writes it last, so this save never finished, and a resume stops without it{_chosen(checkpoint)}",
            commits=True,
        )
        return (committed, *_model(checkpoint), *_findable(checkpoint), *self._optimizer_files(checkpoint))

    def _optimizer_files(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        sharded = requirements_of_sharded(checkpoint)
        if sharded is not None:
            return sharded
        if arguments(checkpoint).is_on("save_only_model") and not _has(checkpoint, _OPTIMIZER):
            why = (
                "it was saved with save_only_model, so a resume starts optimizer and schedule again, silently; to load "
                "the weights, verify with the ruleset inference"
            )
            return (Requirement((_OPTIMIZER,), why),)
        pairs = ((_OPTIMIZER, _SCHEDULER), (_SCHEDULER, _OPTIMIZER))
        why = "without it the Trainer ignores {} as well and starts both again, silently"
        return tuple(Requirement((name,), why.format(other)) for name, other in pairs)

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """At the top, and in the modules of a sentence-transformers model; FSDP's, which a resume takes before all others."""
        keeper, is_adapter = checkpoint.fact(backend), _has(checkpoint, CONFIG)
        if isinstance(keeper, Fsdp) and not is_adapter and (whole := keeper.weights(checkpoint)):
            return whole
        try:
            found = weights_of_modules(checkpoint, filter(None, checkpoint.fact(adapters)))
            return replace(found, behind=_trained_only(checkpoint, found))
        except FactUnavailable as absent:
            if absent.blocked:
                raise
            if isinstance(keeper, Zero):
                return keeper.weights(checkpoint)
            adapter = next((inside(folder, WEIGHTS[0]) for folder in checkpoint.fact(adapters)), None)
            raise FactUnavailable(absent.reason, path=adapter or "model.safetensors") from None

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """trainer_state.json."""
        if checkpoint.listing.get(STATE) is None:
            raise FactUnavailable(f"there is no {STATE}")
        values = dictionary(checkpoint, STATE)
        run = arguments(checkpoint)
        fp16 = (
            run.is_on("fp16")
            and not run.is_on("bf16")
            and (_has(checkpoint, _OPTIMIZER) or bool(checkpoint.fact(fsdp_parts).optimizers))
        )
        scaler = Field(
            "scaler",
            (),
            Severity.WARNING if fp16 else None,
            "the run used fp16, and its loss scale starts again from its initial value",
            _SCALER,
        )
        rng = Field(
            "rng",
            (),
            None if run.is_on("save_only_model") else Severity.WARNING,  # else the Trainer always writes it
            "shuffling and dropout differ from those of an uninterrupted run",
            "rng_state.pth",
        )
        return TrainingState(STATE, values, (*_FIELDS, scaler, rng))

    def optimizer(self, checkpoint: Checkpoint) -> OptimizerState:
        """optimizer.pt; or, as the first rank has it, that of FSDP or DeepSpeed."""
        if is_sharded(checkpoint):
            return checkpoint.optimizers[0]
        return state_dicts.optimizer(_contents(checkpoint, _OPTIMIZER), _OPTIMIZER, "", alone=True)

    def optimizers(self, checkpoint: Checkpoint) -> tuple[OptimizerState, ...]:
        """The one, or its pieces on each rank."""
        return checkpoint.fact(backend).optimizers(checkpoint) or (checkpoint.optimizer,)

    def scheduler(self, checkpoint: Checkpoint) -> SchedulerState:
        """scheduler.pt, or the scheduler that DeepSpeed keeps."""
        if not _has(checkpoint, _SCHEDULER) and (found := checkpoint.fact(backend).scheduler(checkpoint)):
            return found
        return state_dicts.scheduler(_contents(checkpoint, _SCHEDULER), _SCHEDULER, "", alone=True)

    def scaler(self, checkpoint: Checkpoint) -> ScalerState:
        """scaler.pt, or DeepSpeed's loss scale, which only fp16 has."""
        if found := checkpoint.fact(backend).scaler(checkpoint):
            return found
        return state_dicts.scaler(_contents(checkpoint, _SCALER), _SCALER, "")

    def rng(self, checkpoint: Checkpoint) -> RngState:
        """rng_state.pth, or the one of the first rank."""
        return _rng(checkpoint, _random_states(checkpoint)[0])

    def rngs(self, checkpoint: Checkpoint) -> tuple[RngState, ...]:
        """rng_state.pth, or those of all ranks: a resume with as many processes reads the latter, and else the former."""
        return tuple(_rng(checkpoint, path) for path in _random_states(checkpoint))

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The counters as they are written."""
        return progress.read_recorded(checkpoint)

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """How far training got, and what a resume with the same arguments does."""
        return progress.read_progress(checkpoint)

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """`epoch` against `global_step`."""
        return progress.contradictions(checkpoint)

    def ranks(self, checkpoint: Checkpoint) -> Ranks:
        """One file of random-number state for each rank, or with `save_on_each_node` for those of one node."""
        found, size = _rng_files(checkpoint), arguments(checkpoint).world_size
        count = _processes(checkpoint, found)
        if count == 1 and not found and not is_sharded(checkpoint):
            raise FactUnavailable("one process wrote all of it")
        own_ranks = arguments(checkpoint).ranks_of_node(found) or range(count)
        family = RankFiles(
            "the random-number state",
            "rng_state_{}.pth",
            found,
            "that rank's random number stream will differ from an uninterrupted run",
            Severity.INFO,
            expected=own_ranks.stop,
            first=own_ranks.start,
        )
        own = (family,) if found or count > 1 else ()  # one process calls it rng_state.pth
        sizes = (Recorded("world_size", size, ARGUMENTS, "distributed_state.num_processes"),) if size else ()
        return checkpoint.fact(backend).ranks(checkpoint, own, sizes, size or 0)

    def masters(self, checkpoint: Checkpoint) -> tuple[Master, ...]:
        """Those that DeepSpeed keeps in its partitions."""
        found = checkpoint.fact(backend).masters(checkpoint)
        return super().masters(checkpoint) if found is None else found

    def pointers(self, checkpoint: Checkpoint) -> tuple[Pointer, ...]:
        """The best checkpoint, and DeepSpeed's `latest`."""
        own = [found for saved in checkpoint.fact(zero_saves) for found in pointers_of(checkpoint, saved)]
        return (*own, *_best(checkpoint))


def _is_foreign(checkpoint: Checkpoint) -> bool:
    """Whether trainer_state.json is of another trainer, which calls its own so: a dictionary without the Trainer's keys."""
    try:
        values = checkpoint.files.contents(STATE)
    except FactUnavailable:
        return False
    return isinstance(values, Mapping) and bool(values) and len(_KEYS & values.keys()) < 2


def _trained_only(checkpoint: Checkpoint, weights: Weights) -> tuple[tuple[int, ...], ...]:
    """Shapes of what PEFT's encoders of prompts are made of, which its adapters do not hold."""
    folders = {f.path.rpartition("/")[0]: f for f in weights.files if f.path.rpartition("/")[2] in WEIGHTS}
    return tuple(s for folder, file in folders.items() for s in behind(configuration(checkpoint, folder), file.tensors))


def _best(checkpoint: Checkpoint) -> tuple[Pointer, ...]:
    """The best checkpoint; a path from before the run was moved counts where its last part is there."""
    best = checkpoint.state.values.get("best_model_checkpoint")
    saves = [name for name in checkpoint.listing.siblings if _NAME.fullmatch(name)]
    if not isinstance(best, str) or not best or not saves:
        return ()
    name = best.replace("\\", "/").rstrip("/").rpartition("/")[2]
    kept = arguments(checkpoint).is_on("load_best_model_at_end")
    end = ", and loading it at the end of training fails" if kept else ""
    return (
        Pointer(
            STATE,
            best,
            name == own_name(checkpoint) or name in saves,
            f"the Trainer forgets which checkpoint was best{end}",
            "best_model_checkpoint",
            Severity.WARNING if kept else Severity.INFO,
        ),
    )


def _processes(checkpoint: Checkpoint, found: Mapping[int, str]) -> int:
    """How many processes trained: by the arguments; else the least that can have written what is there."""
    least = checkpoint.fact(backend).processes(checkpoint)
    return arguments(checkpoint).world_size or max(least, *(rank + 1 for rank in found), 1)


def _chosen(checkpoint: Checkpoint) -> str:
    """Whether the Trainer would take this save by itself: it goes by the numbers in the names alone."""
    own = _NAME.fullmatch(own_name(checkpoint))
    others = [int(m[1]) for name in checkpoint.listing.siblings if (m := _NAME.fullmatch(name))]
    if own is None or not others or int(own[1]) < max(others):
        return ""
    return "; resume_from_checkpoint=True picks it anyway, because its number is the highest"


def _model(checkpoint: Checkpoint) -> Iterator[Requirement]:
    """What the model is built from."""
    folders = checkpoint.fact(adapters)
    for folder in folders:
        if any(_has(checkpoint, inside(folder, name)) for name in WEIGHTS):
            why = "without it PEFT does not know which modules the adapter changes, and refuses to load it"
            yield Requirement((inside(folder, CONFIG),), why, purposes=TO_RESUME_OR_LOAD)
        elif folder:
            why = "without it the Trainer ignores this adapter, which silently starts from scratch"
            yield Requirement(tuple(inside(folder, name) for name in WEIGHTS), why, purposes=TO_RESUME_OR_LOAD)
    if not folders and not modules(checkpoint):
        why = "without it from_pretrained does not know which model the weights belong to"
        yield Requirement(("config.json",), why, purposes=frozenset({"load"}))
    yield from module_requirements(checkpoint)


def _findable(checkpoint: Checkpoint) -> tuple[Requirement, ...]:
    """A name by which the Trainer finds the weights that are there: that of one file, or of the index of shards."""
    listing = checkpoint.listing
    if any(map(listing.has_file, (*_WHOLE, *WEIGHTS))) or checkpoint.fact(fsdp_parts).models:
        return ()
    shards = [e for e in listing if "/" not in e.path and _SHARD.fullmatch(e.name)]
    if shards:
        stem = _WHOLE[0] if shards[0].name.endswith(".safetensors") else _WHOLE[1]
        why = 'the Trainer finds shards only by it, and stops with "Can\'t find a valid checkpoint"'
        return (Requirement((f"{stem}.index.json",), why, purposes=TO_RESUME_OR_LOAD),)
    elsewhere = any(listing.has_file(f"{name}.index.json") for name in _WHOLE)
    if elsewhere or modules(checkpoint) or checkpoint.fact(adapters) or checkpoint.fact(zero_saves):
        return ()
    try:
        other = find_weights(checkpoint).files[0].path
    except (FactUnavailable, IndexError):
        return ()  # weights/missing reports it
    why = f'the Trainer does not look for {other}, and stops with "Can\'t find a valid checkpoint"'
    return (Requirement(_WHOLE, why, purposes=TO_RESUME_OR_LOAD),)


def _has(checkpoint: Checkpoint, path: str) -> bool:
    return checkpoint.listing.get(path) is not None


def _contents(checkpoint: Checkpoint, path: str) -> object:
    """What a file holds; None, which stands for an absent state, where there is no such file."""
    if not _has(checkpoint, path):
        raise FactUnavailable(f"there is no {path}")
    return checkpoint.files.contents(path)


def _random_states(checkpoint: Checkpoint) -> list[str]:
    found = [p for p in ("rng_state.pth", *_rng_files(checkpoint).values()) if _has(checkpoint, p)]
    if not found:
        raise FactUnavailable("there is no rng_state.pth")
    return found


def _rng(checkpoint: Checkpoint, path: str) -> RngState:
    def head(tensor: TensorInfo) -> bytes:
        return b"" if tensor.offset is None else checkpoint.files.byte_ranges(path, ((tensor.offset, _HEAD_NBYTES),))[0]

    return state_dicts.rng(_contents(checkpoint, path), path, "", _GENERATORS, head=head)


def _rng_files(checkpoint: Checkpoint) -> dict[int, str]:
    found = ((_RNG.fullmatch(e.path), e.path) for e in checkpoint.listing)
    return {int(match["rank"]): path for match, path in found if match and match["rank"]}
