"""What readers share: damage as an exception inside them, a bounded log of problems, reads that must not fall short."""

from __future__ import annotations

from collections.abc import Iterable

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import ReadProblem
from ckpt_rules.storage import Source

MAX_PROBLEMS = 100


class Damage(FormatError):
    """A `ReadProblem` on its way to the one place in its reader that notes it."""

    def __init__(self, code: str, reason: str, offset: int | None = None, where: str | None = None) -> None:
        super().__init__(reason, offset)
        self.code = code
        self.where = where


class ProblemLog:
    """The problems of one file, in the order they were found: the first hundred, and how many more there were."""

    def __init__(self) -> None:
        self._kept: list[ReadProblem] = []
        self._more = 0
        self.fatal = False

    def __len__(self) -> int:
        return len(self._kept) + self._more

    def add(
        self, code: str, message: str, offset: int | None = None, where: str | None = None, *, fatal: bool = True
    ) -> None:
        """Note one problem."""
        self.fatal = self.fatal or fatal
        if len(self._kept) < MAX_PROBLEMS:
            self._kept.append(ReadProblem(code, message, offset, where, fatal))
        else:
            self._more += 1

    def note(self, damage: Damage) -> None:
        """Note a problem that ended some part of the reading."""
        self.add(damage.code, damage.reason, damage.offset, damage.where)

    def extend(self, problems: Iterable[ReadProblem]) -> None:
        """Note problems that a part of the reading returned."""
        for p in problems:
            self.add(p.code, p.message, p.offset, p.where, fatal=p.fatal)

    def all(self) -> tuple[ReadProblem, ...]:
        """Every problem that was kept; where some were not, a last one says how many."""
        if not self._more:
            return tuple(self._kept)
        last = self._kept[-1]
        return (*self._kept, ReadProblem(last.code, f"{self._more:,} further problems like these", fatal=self.fatal))


def read_exactly(source: Source, offset: int, length: int, where: str | None = None) -> bytes:
    """A range of the file; Damage `cut-short` where the file ends inside it."""
    data = source.read(offset, length)
    if len(data) < length:
        end = offset + len(data)
        was = f", though it was {source.size:,} bytes long when it was opened" if offset + length <= source.size else ""
        raise Damage(
            "cut-short",
            f"the file ends at byte {end:,}{was}; {length:,} bytes from byte {offset:,} were to be read",
            end,
            where,
        )
    return data
