"""Accelerate's layout: recognising it, and where its facts are found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from ckpt_rules import (
    Backend,
    Checkpoint,
    Contradiction,
    DataLoaders,
    EntryKind,
    FactUnavailable,
    Field,
    Layout,
    Master,
    ModelConfig,
    OptimizerState,
    Pointer,
    Progress,
    RankFiles,
    Ranks,
    Recorded,
    Requirement,
    ResumePlan,
    RngState,
    ScalerState,
    SchedulerState,
    Severity,
    Sign,
    Signature,
    Tells,
    TensorInfo,
    TrainingState,
    WeightFile,
    Weights,
    dictionary,
    find_weights,
    is_count,
    plain,
    state_dicts,
    torch_weights,
)
from ckpt_rules_accelerate.names import NUMBERED, RANDOM, first_of_node, numbered, numbers_of, only, random_states
from ckpt_rules_accelerate.needs import sharded_requirements, zero_saves
from ckpt_rules_accelerate.registered import counts_in, no_counts_in, scheduler_in
from ckpt_rules_accelerate.simpletuner import data_positions
from ckpt_rules_dcp.public import Fsdp, find_parts
from ckpt_rules_deepspeed.public import DeepSpeed, Zero

_FULL_SHARDED = re.compile(r"pytorch_model_fsdp(?:_\d+)?(?:_rank\d+)?(?:\.bin)?")
_OWN_NAMES = frozenset({"optimizer.bin", "scheduler.bin", "custom_checkpoint_0.pkl", "dl_state_dict.bin"})
_FIRST = {"custom_checkpoint": 0}
_GENERATORS = {"random_state": "python", "numpy_random_seed": "numpy", "torch_manual_seed": "torch"}
_HEAD_NBYTES = 24
_USUAL_MODELS = ("model.safetensors", "pytorch_model.bin")


def _zero_folders(checkpoint: Checkpoint) -> list[str]:
    """Where DeepSpeed's files lie; `latest`, where it alone is left of them."""
    saves = checkpoint.fact(zero_saves)
    return [saved.folder for saved in saves if saved.signs] or ["latest"] * bool(saves)


_RANDOM = Sign.file(RANDOM)
_PARTS = (
    *(Sign.file(name, tells=Tells.SHARED) for name in sorted(_OWN_NAMES)),
    Sign.file(_FULL_SHARDED, tells=Tells.SHARED, most=9),
)


class Accelerate(Layout):
    """A directory of `save_state`: model.safetensors, optimizer.bin, scheduler.bin and random_states_N.pkl."""

    name = "accelerate"
    title = "Accelerate save_state directory"
    signatures: ClassVar[tuple[Signature, ...]] = (
        Signature(
            must=(Sign(_zero_folders, most=9),),
            may=(_RANDOM,),
            extends=DeepSpeed.signatures,
        ),
        Signature(must=(_RANDOM,), may=_PARTS),
        Signature(may=_PARTS, least=2),
    )
    numbered_by_save: ClassVar[bool] = True
    own_loader: ClassVar[tuple[str, ...]] = (
        "random_states_*.pkl",
        "custom_checkpoint_*.pkl",
        "sampler*.bin",
        *Fsdp.own_loader,
        *Zero.own_loader,
    )

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """Model and optimizer always; a scheduler where the optimizer shows that it had one; no holes in numbered files."""
        if checkpoint.fact(backend):
            found = [*sharded_requirements(checkpoint, model_elsewhere=bool(components(checkpoint)))]
        else:
            names = ("pytorch_model_fsdp.bin",) if _is_by_name(checkpoint) else _USUAL_MODELS
            found = [] if self.has_model(checkpoint) else [Requirement(names, _STOPS.format("weights"))]
            if not numbered(checkpoint, "optimizer"):
                found.append(Requirement(("optimizer.bin",), _STOPS.format("optimizer")))
        if not numbered(checkpoint, "scheduler") and _was_scheduled(checkpoint):
            found.append(Requirement(("scheduler.bin",), _NO_SCHEDULER, Severity.WARNING))
        return (*found, *_holes(checkpoint))

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Every prepared model: model.safetensors, model_1.safetensors, …; FSDP's and DeepSpeed's lie in directories."""
        if found := checkpoint.fact(backend).weights(checkpoint):
            return found
        paths = numbered(checkpoint, "model") or numbered(checkpoint, "pytorch_model")
        if len(paths) < 2:
            return find_weights(checkpoint)
        first = replace(find_weights(checkpoint), unindexed=())
        known = {f.path for f in first.files}
        others = tuple(_weights(checkpoint, p) for p in paths if p not in known)
        # Two prepared models may have parameters of the same names.
        named = (replace(f, tensors={f"{f.path}.{n}": t for n, t in f.tensors.items()}) for f in others)
        return replace(first, files=(*first.files, *named))

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The random states of the first rank, which count the batches of the data loader's pass."""
        paths = random_states(checkpoint)
        if not paths:
            raise FactUnavailable("there is no random_states_0.pkl")
        path = paths[min(paths)]
        values = dictionary(checkpoint, path)
        return TrainingState(path, values, (Field("rng", ("random_state", "numpy_random_seed", "torch_manual_seed")),))

    def optimizer(self, checkpoint: Checkpoint) -> OptimizerState:
        """The only optimizer, as the first rank has it; FactUnavailable where there are none or several."""
        if checkpoint.fact(backend):
            parts, saves = checkpoint.fact(find_parts).optimizers, checkpoint.fact(zero_saves)
            if len(parts) + len(saves) > 1:
                raise FactUnavailable(
                    f"there are {len(parts) + len(saves):,} optimizers, and nothing says which one is meant"
                )
            return checkpoint.optimizers[0]
        path = only(checkpoint, "optimizer")
        return state_dicts.optimizer(checkpoint.files.contents(path), path, "", alone=True)

    def optimizers(self, checkpoint: Checkpoint) -> tuple[OptimizerState, ...]:
        """Each prepared optimizer; those that are kept in pieces, of each rank."""
        if found := checkpoint.fact(backend).optimizers(checkpoint):
            return found
        paths = numbered(checkpoint, "optimizer")
        if len(paths) < 2:
            return (checkpoint.optimizer,)
        return tuple(state_dicts.optimizer(checkpoint.files.contents(p), p, "", alone=True) for p in paths)

    def scheduler(self, checkpoint: Checkpoint) -> SchedulerState:
        """The only scheduler, which DeepSpeed may keep; FactUnavailable where there are none or several."""
        own = numbered(checkpoint, "scheduler")
        if not own and (found := checkpoint.fact(backend).scheduler(checkpoint)):
            return found
        path = only(checkpoint, "scheduler")
        return scheduler_in(checkpoint, path, numbered(checkpoint, "custom_checkpoint"))

    def schedulers(self, checkpoint: Checkpoint) -> tuple[SchedulerState, ...]:
        """Each prepared scheduler."""
        paths = numbered(checkpoint, "scheduler")
        if len(paths) < 2:
            return (checkpoint.scheduler,)
        registered = numbered(checkpoint, "custom_checkpoint")
        return tuple(scheduler_in(checkpoint, p, registered) for p in paths)

    def scaler(self, checkpoint: Checkpoint) -> ScalerState:
        """scaler.pt, or DeepSpeed's loss scale, which only fp16 has."""
        if found := checkpoint.fact(backend).scaler(checkpoint):
            return found
        if checkpoint.listing.get("scaler.pt") is None:
            raise FactUnavailable("there is no scaler.pt")
        return state_dicts.scaler(checkpoint.files.contents("scaler.pt"), "scaler.pt", "")

    def rng(self, checkpoint: Checkpoint) -> RngState:
        """In the random states of the first rank."""
        state = checkpoint.state
        return _rng(checkpoint, dict(state.values), state.path)

    def rngs(self, checkpoint: Checkpoint) -> tuple[RngState, ...]:
        """In the random states of each rank."""
        paths = [path for _, path in sorted(random_states(checkpoint).items())]
        return (checkpoint.rng, *(_rng(checkpoint, checkpoint.files.contents(p), p) for p in paths[1:]))

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """save_state writes none; scripts may."""
        return super().config(checkpoint)

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """What DeepSpeed counts; Accelerate itself keeps no epoch and no global step."""
        counted = checkpoint.fact(backend).counted(checkpoint)
        return (Recorded("global_step", counted[1], counted[0], "global_steps"),) if counted else ()

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """The optimizer's count of updates, and what the script registered beside it."""
        counted = [o.updates for o in checkpoint.optimizers if o.updates is not None]
        updates = max(counted, default=None)
        done = "an unknown number of updates" if updates is None else f"{updates:,} update{'' if updates == 1 else 's'}"
        data = "The script has to set the epoch and skip batches itself (skip_first_batches)"
        if numbered(checkpoint, "dl_state_dict"):
            data = f"{_position(checkpoint)}. The script has to set the epoch itself"
        plan = ResumePlan(f"load_state restores the state after {done}. {data}", from_update=updates)
        known = Progress(notes=tuple(counts_in(checkpoint, numbered(checkpoint, "custom_checkpoint"))), plan=plan)
        if steps := checkpoint.fact(backend).counted(checkpoint):
            return replace(known, global_step=steps[1], expected_updates=steps[1] - steps[2], exact=True)
        return known

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """Of DeepSpeed's counters; and what a script registered as a counter and is none."""
        return (
            *checkpoint.fact(backend).contradictions(checkpoint),
            *no_counts_in(checkpoint, numbered(checkpoint, "custom_checkpoint")),
        )

    def masters(self, checkpoint: Checkpoint) -> tuple[Master, ...]:
        """Those that DeepSpeed keeps in its partitions."""
        found = checkpoint.fact(backend).masters(checkpoint)
        return super().masters(checkpoint) if found is None else found

    def pointers(self, checkpoint: Checkpoint) -> tuple[Pointer, ...]:
        """DeepSpeed's `latest`, which load_state does not read."""
        tag = checkpoint.files.small_text("latest") if checkpoint.fact(zero_saves) else None
        if checkpoint.fact(zero_saves) and (fault := checkpoint.files.small_text_fault("latest")):
            return (Pointer("latest", "", exists=False, why=_CONVERTER_STOPS, severity=Severity.WARNING, fault=fault),)
        if tag is None:
            return ()
        entry = checkpoint.listing.get(tag) if tag else None
        there = entry is not None and entry.kind is EntryKind.DIRECTORY
        return (Pointer("latest", tag, there, _CONVERTER_STOPS, severity=Severity.INFO),)

    def dataloaders(self, checkpoint: Checkpoint) -> DataLoaders:
        """Each `dl_state_dict.bin`; within an epoch they are compared with the batches that `accumulate` counted."""
        paths = numbered(checkpoint, "dl_state_dict")
        states = tuple(state_dicts.data_loader(checkpoint.files.contents(p), p, "") for p in paths)
        done = plain(checkpoint.state.values.get("step"))
        given = [s.batches for s in states if is_count(s.batches)]
        # It counts on and on where it is not reset at the end of an epoch, and is then no position.
        within = is_count(done) and any(0 < done < n for n in given if is_count(n))
        return DataLoaders(states, position=int(done) if within and is_count(done) else None)

    def ranks(self, checkpoint: Checkpoint) -> Ranks:
        """One file of random states for each rank; and the pieces that FSDP or DeepSpeed wrote for each."""
        keeper, found = checkpoint.fact(backend), random_states(checkpoint)
        count = max([keeper.processes(checkpoint), *(rank + 1 for rank in found), 1])
        family = RankFiles(
            "the random-number state",
            "random_states_{}.pkl",
            found,
            "that rank's random number stream will differ from an uninterrupted run, and load_state only logs it",
            Severity.WARNING,
            expected=count,
            first=first_of_node(found),
        )
        return keeper.ranks(checkpoint, (family, *data_positions(checkpoint, count)), (), count)

    def has_model(self, checkpoint: Checkpoint) -> bool:
        """Whether load_state finds weights, or a hook of the script loads them."""
        named = numbered(checkpoint, "model") or numbered(checkpoint, "pytorch_model")
        return bool(named) or bool(checkpoint.fact(backend))


_NO_SCHEDULER = (
    "the optimizer had a scheduler; where that was prepared, load_state stops with FileNotFoundError, and where not, its state "
    "was never saved"
)
_CONVERTER_STOPS = "zero_to_fp32.py finds the save by it, and stops; load_state does not read it"
_STOPS = "load_state stops with FileNotFoundError: it loads the {} first"


def components(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Directories at the top with diffusers' weights, or with its configuration of a model, as its hooks write both."""
    files = [e for e in checkpoint.listing.files() if e.path.count("/") == 1]
    weights = {e.parent for e in files if e.name.startswith("diffusion_pytorch_model")}
    known = {e.parent for e in files if e.name == "config.json" and _is_of_diffusers(checkpoint, e.path)}
    return tuple(sorted(weights | known))


def _is_of_diffusers(checkpoint: Checkpoint, path: str) -> bool:
    try:
        values = checkpoint.files.contents(path)
    except FactUnavailable:
        return False
    return isinstance(values, Mapping) and "_diffusers_version" in values


def backend(checkpoint: Checkpoint) -> Backend:
    """FSDP or DeepSpeed, where it keeps weights and optimizer in directories or files of its own."""
    saves, parts = checkpoint.fact(zero_saves), checkpoint.fact(find_parts)
    return Zero(saves) if saves else Fsdp(parts) if parts.are_any else Backend()


def _rng(checkpoint: Checkpoint, value: object, path: str) -> RngState:
    def head(tensor: TensorInfo) -> bytes:
        return b"" if tensor.offset is None else checkpoint.files.byte_ranges(path, ((tensor.offset, _HEAD_NBYTES),))[0]

    return state_dicts.rng(value, path, "", _GENERATORS, logged=True, head=head)


def _holes(checkpoint: Checkpoint) -> list[Requirement]:
    """Numbers that are missing below the highest of a kind: objects are loaded in their order, and none may be left out."""
    found: list[Requirement] = []
    for stem in ("model", "optimizer", "scheduler", "custom_checkpoint", "dl_state_dict"):
        matches = [m for p in numbered(checkpoint, stem) if (m := NUMBERED.fullmatch(p))]
        numbers = numbers_of(numbered(checkpoint, stem))
        for number in sorted(set(range(max(numbers, default=0))) - set(numbers)):
            tail = f"_{number}" if number or stem in _FIRST else ""
            loader = stem == "dl_state_dict"
            wants = (
                "this data loader starts its data again" if loader else "load_state expects as many as were prepared"
            )
            why = f"a later one of the {stem} files is there, and {wants}"
            severity = Severity.WARNING if loader else Severity.ERROR
            found.append(Requirement((f"{stem}{tail}.{matches[0]['suffix']}",), why, severity))
    return found


def _was_scheduled(checkpoint: Checkpoint) -> bool:
    try:
        optimizers = checkpoint.optimizers
    except FactUnavailable:
        return False
    keeper = checkpoint.fact(backend)
    if isinstance(keeper, Zero) and keeper.steps_scheduler(checkpoint) is not False:
        return False
    if any(_is_scheduler(checkpoint, path) for path in numbered(checkpoint, "custom_checkpoint")):
        return False
    return any("initial_lr" in group.options for o in optimizers for group in o.groups)


def _is_scheduler(checkpoint: Checkpoint, path: str) -> bool:
    """Whether a registered object is a scheduler, which was not prepared."""
    try:
        values = checkpoint.files.contents(path)
    except FactUnavailable:
        return False
    return isinstance(values, Mapping) and {"last_epoch", "_last_lr"} <= values.keys()


def _is_by_name(checkpoint: Checkpoint) -> bool:
    """Whether the optimizer knows its parameters by name, as FSDP saves it."""
    try:
        optimizers = checkpoint.optimizers
    except FactUnavailable:
        return False
    return any(isinstance(param, str) for o in optimizers for group in o.groups for param in group.params)


def _position(checkpoint: Checkpoint) -> str:
    """Where the data continue that keep their own state."""
    words = []
    try:
        states = checkpoint.dataloaders.states
    except FactUnavailable:
        return "where its data loaders continue can't be told"
    for state in states:
        where = "where they were"
        if state.finished or state.batches == 0:
            where = "with their first batch"
        elif is_count(state.batches):
            where = f"after batch {int(state.batches):,}"
        words.append(f"those of {state.path} {where}")
    return f"data loaders continue, {', '.join(words)}"


def _weights(checkpoint: Checkpoint, path: str) -> WeightFile:
    if path.endswith(".safetensors"):
        header = checkpoint.files.safetensors(path)
        return WeightFile(path, "safetensors", header.tensors, metadata=header.metadata, problems=header.problems)
    return torch_weights(checkpoint, path)
