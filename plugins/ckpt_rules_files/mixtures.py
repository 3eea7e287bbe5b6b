"""files/mixed-artifacts and files/size-outlier: files that do not look as if one save had written them."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from pydantic import Field

from ckpt_rules import Checkpoint, EntryKind, FactUnavailable, Place, Problem, Reads, Rule, Severity, conventions

_FEWEST = 3


class MixedArtifacts(Rule):
    """A base model and an adapter are in one directory.

    ## What it checks
    Whether the top directory has both adapter weights with their `adapter_config.json` and full model weights with a
    `config.json`.

    ## Why it matters
    Loaders differ in which one they read: one loads the model without the adapter, another the adapter on a base model
    from elsewhere. Neither says so.

    ## How to repair
    Move each to its own directory.
    """

    id = "files/mixed-artifacts"
    severity = Severity.WARNING
    tags = frozenset({"files", "load", "resume"})
    reads = Reads.LISTING

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        listing = checkpoint.listing
        adapter = listing.first_file(conventions.weight_files.ADAPTER)
        names = [n + end for n in conventions.weight_files.TRANSFORMERS for end in ("", conventions.weight_files.INDEX)]
        model = listing.first_file(names)
        if (
            adapter
            and model
            and listing.has_file(conventions.weight_files.ADAPTER_CONFIG)
            and listing.has_file("config.json")
        ):
            yield Problem(
                message=f"{adapter.name} is in the same directory as {model.name}: some loaders read the adapter, "
                "others the model without it",
                place=Place(path=adapter.path),
                help="move each to its own directory",
                data={"adapter": adapter.path, "model": model.path},
            )


class SizeOutlier(Rule):
    """One rank's file is far smaller than those of the other ranks.

    ## What it checks
    Files that every rank writes, if there are three or more of a kind: none is smaller than a given share of the
    median. Empty files are reported by files/empty.

    ## Why it matters
    The file was truncated in a way that its format does not reveal, or that rank did not save its share.

    ## How to repair
    Copy the file from the node where the rank ran, or resume from an earlier save.
    """

    id = "files/size-outlier"
    severity = Severity.WARNING
    tags = frozenset({"files", "resume"})

    ratio: float = Field(
        default=0.5, gt=0, lt=1, description="Share of the median size below which a file is reported."
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        families = [f for f in checkpoint.ranks.families if len(f.paths) >= _FEWEST]
        if not families:
            raise FactUnavailable("no kind of file exists once per rank for three ranks or more")
        for family in families:
            entries = [
                e for p in family.paths.values() if (e := checkpoint.listing.get(p)) and e.kind is EntryKind.FILE
            ]
            usual = median(e.size for e in entries) if entries else 0
            for entry in entries:
                if 0 < entry.size < self.ratio * usual:
                    yield Problem(
                        message=f"{entry.path} has {entry.size:,} bytes, while half of its {len(entries):,} "
                        "siblings have "
                        f"{int(usual):,} or more",
                        place=Place(path=entry.path),
                        help="copy it from the node where the rank ran, or resume from an earlier save",
                        data={"nbytes": entry.size, "median": int(usual)},
                    )
