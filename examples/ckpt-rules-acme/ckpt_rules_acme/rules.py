"""Acme's two rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, Severity

OWNER = "owner.json"
HELP = 'write {"team": "…"} into it when saving'


class NoFp32(Rule):
    """More of the weights is kept in float32 than Acme pays storage for.

    ## What it checks
    The share of the weights' bytes that are float32. Norms may be, whole models may not.

    ## Why it matters
    A model in float32 takes twice the space of one in bfloat16, in every save of every run.

    ## How to repair
    Cast the weights before saving them; the float32 master copy belongs in the optimizer's state.
    """

    id = "acme/no-fp32"
    severity = Severity.WARNING
    tags = frozenset({"load"})

    allowed_share: float = Field(default=0.1, ge=0, le=1, description="Share of the bytes that may be float32, 0 to 1.")

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem at the most."""
        weights = checkpoint.weights
        for file in weights.broken:  # reported by the rule whose job that is; a share of what is left would be wrong
            raise FactUnavailable(f"{file.path} is damaged", path=file.path, blocked=True)
        wide = [(file, name, t) for file, name, t in weights.items() if t.dtype == "float32"]
        share = sum(t.nbytes for _, _, t in wide) / max(1, weights.nbytes)
        if share > self.allowed_share:
            file, name, _ = max(wide, key=lambda found: found[2].nbytes)
            yield Problem(
                message=f"{share:.0%} of {weights.nbytes:,} bytes of weights are float32, and {self.allowed_share:.0%} may be",
                place=Place(path=file.path, tensor=name),
                help="cast the weights to bfloat16 before saving them",
                data={"share": round(share, 4)},
            )


class OwnerFile(Rule):
    """Nobody says whose checkpoint this is.

    ## What it checks
    A file `owner.json` that names a team: `{"team": "speech"}`. With the option `teams`, one of these.

    ## Why it matters
    Checkpoints of people who have left fill the disks, and nobody dares to delete them.

    ## How to repair
    Write owner.json when saving.
    """

    id = "acme/owner-file"
    severity = Severity.WARNING

    teams: tuple[str, ...] = Field(
        default=(), description="Teams that may own a checkpoint; any, where none is listed."
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem at the most; owner.json is ours alone, so that its damage is ours to report as well."""
        if not checkpoint.listing.has_file(OWNER):
            yield Problem(message=f"there is no {OWNER}", place=Place(path=OWNER), help=HELP)
            return
        file = checkpoint.files.json(OWNER)
        team = file.value.get("team") if isinstance(file.value, Mapping) else None
        if file.problems:
            problem = file.problems[0]
            place = Place(path=OWNER, offset=problem.offset)
            yield Problem(message=f"{OWNER} can't be parsed: {problem.message}", place=place, help=HELP)
        elif not isinstance(team, str) or not team:
            yield Problem(message=f"{OWNER} names no team", place=Place(path=OWNER, key="team"), help=HELP)
        elif self.teams and team not in self.teams:
            yield Problem(
                message=f"the team '{team}' is none of {', '.join(self.teams)}",
                place=Place(path=OWNER, key="team"),
                help="name the team that owns the run",
                data={"team": team},
            )
