"""load/torch and load/safetensors: whether the real loader takes the file."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Reads, Rule
from ckpt_rules_load.files import SAFETENSORS, TORCH, Loaded, loaded_by_safetensors, loaded_by_torch
from ckpt_rules_load.running import Answer, LoadLimits
from ckpt_rules_load.words import short


class _LoadRule(Rule):
    """A rule that runs a loader in its own process, and the limits of that process."""

    tags = frozenset({"loader"})
    reads = Reads.BYTES

    memory: int = Field(
        default=2048, ge=1, description="MiB of memory that the loader may use in addition to the file size (on Linux)."
    )
    cpu: int = Field(
        default=120,
        ge=1,
        description="Seconds of CPU time that the loader may use per file, plus one for each 10 MiB of the file.",
    )
    timeout: float = Field(
        default=300,
        gt=0,
        le=1_000_000,
        description="Seconds that loading a file may take, plus one for each 10 MiB of the file.",
    )

    def limits(self) -> LoadLimits:
        """The options as the process takes them."""
        return LoadLimits(self.memory, self.cpu, self.timeout)


class LoadTorch(_LoadRule):
    """torch.load can't load a file.

    ## What it checks
    Whether `torch.load(path, weights_only=True, mmap=True, map_location="cpu")` loads each torch file of the training
    state and of the weights (files from before torch 1.6 without `mmap`). The loader runs in its own process, with
    limits on memory, CPU time and wall time. A file is loaded only if our own reader found nothing in it that the
    weights-only loader refuses; what torch refuses for that reason is reported by `state/needs-unsafe-load`. Files that
    the trainer reads with its own loader are not tried. Needs torch 2.10 or newer, and is skipped without it.

    ## Why it matters
    This is the final test: whatever our own reader may have missed, this is the call that a resume will make.

    ## How to repair
    Take the file from another copy or from an earlier checkpoint. If the loader hit a limit and the file is meant to be
    that large, raise the option `memory`, `cpu` or `timeout`.
    """

    id = "load/torch"

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        yield from _problems(TORCH, checkpoint.fact(loaded_by_torch, self.limits()))


class LoadSafetensors(_LoadRule):
    """safetensors can't open a weight file.

    ## What it checks
    Whether `safetensors.safe_open` opens each safetensors file of the weights and returns the shape of every tensor in
    it. The loader runs in its own process, with limits on memory, CPU time and wall time. Needs the package
    safetensors, not torch.

    ## Why it matters
    This is the final test: whatever our own reader may have missed, this is the call that every loader of such files
    makes.

    ## How to repair
    Take the file from another copy, or save the weights again. If the loader hit a limit and the file is meant to be
    that large, raise the option `memory`, `cpu` or `timeout`.
    """

    id = "load/safetensors"

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        yield from _problems(SAFETENSORS, checkpoint.fact(loaded_by_safetensors, self.limits()))


def _problems(loader: str, loaded: Loaded) -> Iterator[Problem]:
    """One for each file that was refused; FactUnavailable after them where some were not tried, lest it count as a pass."""
    for answer in loaded.answers:
        if answer.error is not None:
            yield _refused(loader, answer.path, answer.error)
        elif answer.death is not None:
            yield _died(loader, answer, answer.death)
    if loaded.left:
        first = next((left for left in loaded.left if left.blocked), loaded.left[0])
        more = f"; {len(loaded.left) - 1:,} more were not tried" if len(loaded.left) > 1 else ""
        raise FactUnavailable(
            f"not handed to {loader}: {first.path} {first.why}{more}", path=first.path, blocked=first.blocked
        )


def _refused(loader: str, path: str, error: str) -> Problem:
    return Problem(
        message=f"{loader} refuses {path}: {short(error)}",
        place=Place(path=path),
        help="take the file from another copy or from an earlier checkpoint; this one can't be loaded",
        data={"loader": loader, "error": short(error)},
    )


def _died(loader: str, answer: Answer, death: str) -> Problem:
    return Problem(
        message=f"{loader} did not return from {answer.path}: {short(death)}",
        place=Place(path=answer.path),
        help="do not load the file unless you know its source; if it is meant to be so large, raise the options `memory`, "
        "`cpu` and `timeout`",
        data={"loader": loader, "death": short(death)},
    )
