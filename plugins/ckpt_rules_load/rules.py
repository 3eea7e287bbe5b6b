"""load/torch and load/safetensors: whether the real loader takes the file."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Reads, Rule
from ckpt_rules_load.files import SAFETENSORS, TORCH, Loaded, loaded_by_safetensors, loaded_by_torch
from ckpt_rules_load.running import Answer, LoadLimits
from ckpt_rules_load.words import short


class _LoadRule(Rule):
    """A rule that has a loader run in a process of its own, and the limits of that process."""

    tags = frozenset({"loader"})
    reads = Reads.BYTES

    memory: int = Field(
        default=2048, ge=1, description="MiB that the loader may take besides the bytes of the file (on Linux)."
    )
    cpu: int = Field(
        default=120,
        ge=1,
        description="Seconds that the loader may compute for a file, and one more for each 10 MiB of it.",
    )
    timeout: float = Field(
        default=300, gt=0, le=1_000_000, description="Seconds that a file may take, and one more for each 10 MiB of it."
    )

    def limits(self) -> LoadLimits:
        """The options as the process takes them."""
        return LoadLimits(self.memory, self.cpu, self.timeout)


class LoadTorch(_LoadRule):
    """torch.load does not take a file.

    ## What it checks
    Whether `torch.load(path, weights_only=True, mmap=True, map_location="cpu")` takes each torch file of the training state
    and of the weights (files from before torch 1.6 without `mmap`). It is called in a process of its own, under limits of
    memory, computing and time. A file is handed over only if our own reader found nothing in it that the weights-only loader
    does not let through; what torch refuses for that reason is reported by `state/needs-unsafe-load`. Files that the
    trainer reads with a loader of its own are left alone. Needs torch 2.10 or newer, and is skipped without.

    ## Why it matters
    It is the last word: whatever our own reader may have overlooked, this is the call that a resume will make.

    ## How to repair
    Take the file from another copy or from an earlier checkpoint. Where the loader came to a limit, and the file is meant to
    be so large, raise the option `memory`, `cpu` or `timeout`.
    """

    id = "load/torch"

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        yield from _problems(TORCH, checkpoint.fact(loaded_by_torch, self.limits()))


class LoadSafetensors(_LoadRule):
    """safetensors does not open a file of weights.

    ## What it checks
    Whether `safetensors.safe_open` takes each safetensors file of the weights, and tells the shape of every tensor in it. It
    is called in a process of its own, under limits of memory, computing and time. Needs the package safetensors, not torch.

    ## Why it matters
    It is the last word: whatever our own reader may have overlooked, this is the call that every loader of such files makes.

    ## How to repair
    Take the file from another copy, or save the weights again. Where the loader came to a limit, and the file is meant to
    be so large, raise the option `memory`, `cpu` or `timeout`.
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
