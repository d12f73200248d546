"""Who works on a run, and what was last heard of each: a row for every worker there has been."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from sparknet.reporting.watch import is_straggler
from sparknet.rounds import Report, Round
from sparknet.usage import Usage

State = Literal["training", "slow", "lost", "reclaimed"]

_NUMBER = re.compile(r"worker (\d+)\b")


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """Worker ``number`` at the end of ``round``, the last it took part in: of its ``seconds`` it waited
    ``data_seconds`` for batches of ``shard``. ``name`` says where it runs, ``usage`` what it uses there, as
    far as it has said.
    """

    number: int
    state: State
    name: str
    round: int
    shard: int
    seconds: float
    data_seconds: float
    usage: Usage | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> WorkerRow:
        """The row that ``asdict`` made these values of."""
        usage = values.get("usage")
        return cls(**{**values, "usage": Usage(**usage) if usage else None})


class Roster:
    """Sees one round after the other."""

    def __init__(self) -> None:
        self._rows: dict[int, WorkerRow] = {}

    @property
    def rows(self) -> tuple[WorkerRow, ...]:
        return tuple(row for _, row in sorted(self._rows.items()))

    def take(self, done: Round, notes: Iterable[str] = ()) -> None:
        """A round, and what ``Watch`` says of it."""
        slow = {number_of(note) for note in notes if is_straggler(note)}
        for report in done.reports:
            self._rows[report.member] = self._row(done, report, slow)
        self._gone(done, done.result.lost, "lost")
        self._gone(done, done.result.left, "reclaimed")

    def _gone(self, done: Round, whom: Iterable[str], state: State) -> None:
        for number in map(number_of, whom):
            if number in self._rows and number not in done.members:
                self._rows[number] = replace(self._rows[number], state=state)

    def _row(self, done: Round, report: Report, slow: set[int | None]) -> WorkerRow:
        before = self._rows.get(report.member)
        return WorkerRow(
            number=report.member,
            state="slow" if report.member in slow else "training",
            name=done.result.names.get(report.member, f"worker {report.member}"),
            round=done.number,
            shard=report.read,
            seconds=report.seconds,
            data_seconds=report.data_seconds,
            usage=report.usage or (before.usage if before else None),
        )


def values_of(rows: Iterable[WorkerRow]) -> list[dict[str, Any]]:
    """What can be sent as JSON."""
    return [asdict(row) for row in rows]


def number_of(text: str) -> int | None:
    """Of the worker that a sentence begins with.

    >>> number_of("worker 3 (attempt 3, ip-10-0-0-9, process 812): the connection was lost")
    3
    """
    found = _NUMBER.match(text)
    return int(found[1]) if found else None
