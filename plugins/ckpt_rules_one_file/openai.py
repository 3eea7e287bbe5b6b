"""OpenAI's diffusion scripts: `modelN.pt`, `optN.pt` and `ema_R_N.pt` for each save, distinguished by the step in their names."""

from __future__ import annotations

import re

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Layout,
    OptimizerState,
    Progress,
    Recorded,
    Requirement,
    ResumePlan,
    Sign,
    Signature,
    Weights,
    state_dicts,
    torch_weights,
)

_FILE = re.compile(r"(?P<part>model|opt|ema_[\d.]+_)(?P<step>\d{6,})\.pt")


def _newest_files(checkpoint: Checkpoint) -> list[str]:
    """The newest step's, where a model and an optimizer, or moving averages, are there of any step."""
    parts = _parts(checkpoint)
    kinds = {part for found in parts.values() for part in found}
    return sorted(parts[max(parts)].values()) if len(kinds) > 1 and kinds & {"model", "opt"} else []


class OpenAIDiffusion(Layout):
    """A directory of such saves; the newest is what counts, for each older one has files of its own."""

    name = "openai-diffusion"
    title = "checkpoint of OpenAI's diffusion scripts"
    signatures = (Signature(must=(Sign(_newest_files, most=9),)),)

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """Of the newest step all that other steps have."""
        parts = _parts(checkpoint)
        if not parts:
            return (Requirement(("model*.pt",), _WHY["model"]), Requirement(("opt*.pt",), _WHY["opt"]))
        step, kinds = max(parts), {part for found in parts.values() for part in found}
        digits = re.sub(r"\D", "", next(iter(parts[step].values())).rpartition("_")[2].rpartition(".")[0])
        return tuple(
            Requirement((f"{part}{digits}.pt",), _WHY["ema" if part.startswith("ema") else part])
            for part in sorted(kinds | {"model", "opt"})
        )

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """The model of the newest step."""
        path = _newest(checkpoint, "model")
        return Weights((torch_weights(checkpoint, path),))

    def optimizer(self, checkpoint: Checkpoint) -> OptimizerState:
        """That of the newest step."""
        path = _newest(checkpoint, "opt")
        return state_dicts.optimizer(checkpoint.files.contents(path), path, "")

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The number in the names, which nothing else records."""
        parts = _parts(checkpoint)
        if not parts:
            raise FactUnavailable("no file is named by a step")
        step = max(parts)
        return (Recorded("global_step", step, next(iter(parts[step].values())), "the file's name"),)

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """By the name of the newest files."""
        step = int(str(checkpoint.recorded[0].value))
        by = ", by the name of the file that --resume_checkpoint names; data are drawn again"
        return Progress(
            global_step=step, expected_updates=step, plan=ResumePlan(from_update=step, unit="step", also=by)
        )


_WHY = {
    "model": "the step of the newest save has no model to resume from",
    "opt": "the optimizer then starts from scratch, with one line in the log",
    "ema": "the moving average then starts again from the model, with one line in the log",
}


def _parts(checkpoint: Checkpoint) -> dict[int, dict[str, str]]:
    """The files of each step, by their part."""
    found: dict[int, dict[str, str]] = {}
    for entry in checkpoint.listing:
        if match := _FILE.fullmatch(entry.path):
            found.setdefault(int(match["step"][:18]), {})[match["part"]] = entry.path
    return found


def _newest(checkpoint: Checkpoint, part: str) -> str:
    parts = _parts(checkpoint)
    path = parts[max(parts)].get(part) if parts else None
    if path is None:
        raise FactUnavailable(f"the newest step has no {part} file")
    return path
