"""The files of one save, told by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ckpt_rules import Checkpoint, EntryKind, conventions, saves_among

_MODEL = re.compile(r"mp_rank_(?P<mp>\d{2,4})_model_states\.pt")
_PARTITION = re.compile(
    r"(?P<prefix>(?:bf16_)?zero_pp_rank_)(?P<dp>\d{1,6})_mp_rank_(?P<mp>\d{2,4})(?P<what>_model_states|_?optim_states)\.pt"
)
_EXPERT = re.compile(r"(?:layer_(?P<layer>\d+)_)?expert_(?P<expert>\d+)_mp_rank_(?P<mp>\d{2,4})_model_states\.pt")
_EXPERT_OPTIMIZER = re.compile(r"expp_rank_(?P<rank>\d{1,6})_mp_rank_(?P<mp>\d{2,4})_optim_states\.pt")
_LAYER = re.compile(r"layer_(?P<layer>\d{2,4})-(?P<rest>(?:model_(?P<mp>\d+)-)?model_states)\.pt")
UNIVERSAL_STATE = "zero/optimizer_state.pt"
LIGHTNING_TAG = "checkpoint"
_UNIVERSAL = re.compile(r"zero/(?P<parameter>[^/]+)/(?P<part>\w+)\.pt")


@dataclass(frozen=True, slots=True)
class Saved:
    """The files of one save, by what they hold; every path is relative to the checkpoint.

    folder:          where they lie, with a slash at its end, or '' where the checkpoint is the save
    model:           `mp_rank_00_model_states.pt`, by model-parallel rank
    model_parts:     stage 3's `zero_pp_rank_0_mp_rank_00_model_states.pt`, by data-parallel and model-parallel rank
    optimizer_parts: `zero_pp_rank_0_mp_rank_00_optim_states.pt`, likewise
    experts:         by layer, expert and model-parallel rank; layer -1 in old saves, which did not number them
    expert_optimizers: by expert-parallel and model-parallel rank
    layers:          files of a pipeline's layers, by layer and model-parallel rank
    universal:       parts (`fp32`, `exp_avg`) of each parameter of a universal checkpoint
    universal_state: what a universal checkpoint keeps of the optimizer as a whole, or None
    """

    folder: str
    model: Mapping[int, str] = field(default_factory=dict)
    model_parts: Mapping[tuple[int, int], str] = field(default_factory=dict)
    optimizer_parts: Mapping[tuple[int, int], str] = field(default_factory=dict)
    experts: Mapping[tuple[int, int, int], str] = field(default_factory=dict)
    expert_optimizers: Mapping[tuple[int, int], str] = field(default_factory=dict)
    layers: Mapping[tuple[int, int], str] = field(default_factory=dict)
    universal: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    universal_state: str | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The files that hold counters, the first rank's first."""
        parts = [self.model_parts[key] for key in sorted(self.model_parts)]
        return (*(self.model[mp] for mp in sorted(self.model)), *parts)

    @property
    def signs(self) -> tuple[str, ...]:
        """One file of each kind that is there."""
        kinds = (self.model, self.model_parts, self.optimizer_parts, self.experts, self.expert_optimizers, self.layers)
        first = [next(iter(kind.values())) for kind in kinds if kind]
        return (*first, *(next(iter(parts.values())) for parts in list(self.universal.values())[:1]))


def saved_in(checkpoint: Checkpoint, folder: str) -> Saved:
    """The files of the save in a folder of the checkpoint (`global_step5/`), or at its top ('')."""
    kinds: dict[str, dict[object, str]] = {}
    universal: dict[str, dict[str, str]] = {}
    for entry in checkpoint.listing.files("*.pt"):
        if not entry.path.startswith(folder):
            continue
        name = entry.path.removeprefix(folder)
        if match := _UNIVERSAL.fullmatch(name):
            universal.setdefault(match["parameter"], {})[match["part"]] = entry.path
        elif known := _kind_of(name):
            kinds.setdefault(known[0], {})[known[1]] = entry.path
    whole = f"{folder}{UNIVERSAL_STATE}"
    state = whole if checkpoint.listing.has_file(whole) else None
    return Saved(folder, universal=universal, universal_state=state, **kinds)  # type: ignore[arg-type]


def _kind_of(name: str) -> tuple[str, object] | None:
    if match := _MODEL.fullmatch(name):
        return "model", int(match["mp"])
    if match := _PARTITION.fullmatch(name):
        kind = "optimizer_parts" if "optim" in match["what"] else "model_parts"
        return kind, (int(match["dp"]), int(match["mp"]))
    if match := _EXPERT.fullmatch(name):
        return "experts", (int(match["layer"] or -1), int(match["expert"]), int(match["mp"]))
    if match := _EXPERT_OPTIMIZER.fullmatch(name):
        return "expert_optimizers", (int(match["rank"]), int(match["mp"]))
    if match := _LAYER.fullmatch(name):
        return "layers", (int(match["layer"]), int(match["mp"] or 0))
    return None


def template_of(path: str) -> str:
    """The path of a partition with `{}` in the place of its data-parallel or expert-parallel rank."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + re.sub(r"(?<=pp_rank_)\d+", "{}", name, count=1)


def find_saved(checkpoint: Checkpoint) -> Saved:
    """The save that the checkpoint is; or, in a save directory, the one with an uncommon name to which `latest` leads.

    Where it leads nowhere, Lightning's constant tag is looked for.
    """
    here = saved_in(checkpoint, "")
    if here.signs:
        return here
    for tag in (checkpoint.files.small_text(conventions.pointers.DEEPSPEED), LIGHTNING_TAG):
        entry = checkpoint.listing.get(tag) if tag and not saves_among([tag]) else None
        found = saved_in(checkpoint, f"{tag}/") if entry is not None and entry.kind is EntryKind.DIRECTORY else here
        if found.signs:
            return found
    return here


def saves_inside(checkpoint: Checkpoint) -> tuple[Saved, ...]:
    """The saves in directories at the top, where trainers that are built on DeepSpeed put them, by name."""
    tops = {e.path.partition("/")[0] for e in checkpoint.listing.files("*.pt") if "/" in e.path}
    found = (saved_in(checkpoint, f"{top}/") for top in sorted(tops))
    return tuple(saved for saved in found if saved.signs)
