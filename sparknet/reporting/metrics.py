"""What a run did, one record a round: a line for people, a line of JSON for programs.

    round 12/100  loss 1.8312  accuracy 41.2 %  1,140 images/s  00:31

``sparknet-ec2 submit`` reads the ``round 12/100`` at the start of it. ``metrics.jsonl`` holds the same and
more; ``report.py`` draws its page from nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from sparknet.errors import DataError, UsageError
from sparknet.training import Round


@dataclass(frozen=True, kw_only=True)
class Record:
    """One round. Times in seconds, ``elapsed_seconds`` since the run began; ``accuracy`` 0 to 1.

    ``seconds`` is the round without its test: ``compute_seconds``, the slowest worker's steps (in which a
    worker waited for batches for ``data_seconds`` at most), ``exchange_seconds``, the weights' way there and
    back, and ``joining_seconds``, in which workers came or came back. ``wait_seconds`` is how long a worker
    waited for the slowest, on average. ``members`` are the workers whose weights are in the mean, ``lost``
    says why others' are not, ``left`` whose machines are taken back, ``joined`` who has come since the round
    before, ``notes`` what was slow.
    """

    round: int
    rounds: int
    tau: int
    steps: int
    images: int
    loss: float | None
    lr: float
    accuracy: float | None
    scores: Mapping[str, float | None]
    elapsed_seconds: float
    seconds: float
    compute_seconds: float
    wait_seconds: float
    exchange_seconds: float
    joining_seconds: float
    test_seconds: float
    bytes_sent: int
    bytes_received: int
    workers: int
    members: tuple[int, ...] = ()
    lost: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    bytes_between: int = 0
    data_seconds: float = 0.0
    synthetic: bool = False

    @classmethod
    def of(
        cls, done: Round, *, elapsed_seconds: float, synthetic: bool = False, notes: tuple[str, ...] = ()
    ) -> Record:
        """The record of ``done``; numbers that are not finite become None, which JSON can say."""
        return cls(
            round=done.number,
            rounds=done.rounds,
            tau=done.tau,
            steps=done.steps,
            images=done.images,
            loss=_finite(done.loss),
            lr=done.lr,
            accuracy=done.accuracy,
            scores={
                name: _finite(value) for name, value in (done.scores.means if done.scores else {}).items()
            },
            elapsed_seconds=elapsed_seconds,
            seconds=done.seconds,
            compute_seconds=done.compute_seconds,
            wait_seconds=done.wait_seconds,
            exchange_seconds=done.exchange_seconds,
            joining_seconds=done.joining_seconds,
            test_seconds=done.test_seconds,
            bytes_sent=done.bytes_sent,
            bytes_received=done.bytes_received,
            bytes_between=done.bytes_between,
            data_seconds=done.data_seconds,
            workers=len(done.members),
            members=done.members,
            lost=tuple(done.result.lost),
            left=tuple(done.result.left),
            notes=notes,
            joined=done.result.joined,
            synthetic=synthetic,
        )

    @property
    def images_per_second(self) -> float:
        """Training images of all workers together, with the exchange of weights but without joining."""
        return self.images / max(self.seconds - self.joining_seconds, 1e-9)

    @property
    def line(self) -> str:
        """The progress line: the one place where it is put together."""
        parts = [
            f"round {self.round}/{self.rounds}",
            f"loss {'nan' if self.loss is None else format(self.loss, '.4f')}",
            *([f"accuracy {percent(self.accuracy, self.synthetic)}"] if self.accuracy is not None else []),
            f"{self.images_per_second:,.0f} images/s",
            clock(self.elapsed_seconds),
        ]
        return "  ".join(parts)


class Log:
    """Appends records to a file, one line of JSON each, flushed: a run that is killed keeps what it wrote.

    It begins the file anew, with ``before``, in one step. Raises UsageError if that cannot be.
    """

    def __init__(self, file: Path, before: Iterable[Record] = ()) -> None:
        new = file.with_name(f".{file.name}.new")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            new.write_text("".join(map(line_of, before)), encoding="utf-8")
            self._file = new.replace(file).open("a", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{file} cannot be written ({error.strerror}): give another folder") from error

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def write(self, record: Record) -> None:
        self._file.write(line_of(record))
        self._file.flush()


def read(file: Path) -> list[Record]:
    """The records of a ``metrics.jsonl``; fields it does not know are left out, a last line cut short too.

    Raises DataError for anything else that is not a record.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    return [
        record
        for number, line in enumerate(lines, start=1)
        if (record := _parsed(line, f"{file}:{number}", is_last=number == len(lines))) is not None
    ]


def percent(fraction: float, synthetic: bool = False) -> str:
    """An accuracy as people read it, and where it is of drawn pictures, saying so.

    >>> percent(0.4123, synthetic=True)
    '41.2 % (synthetic data)'
    """
    return f"{100 * fraction:.1f} %{' (synthetic data)' if synthetic else ''}"


def clock(seconds: float) -> str:
    """
    >>> clock(31), clock(3725)
    ('00:31', '1:02:05')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def line_of(record: Record) -> str:
    """The record's line of ``metrics.jsonl``."""
    values = {**asdict(record), "images_per_second": record.images_per_second}
    return json.dumps(values, allow_nan=False) + "\n"


def record_of(values: Mapping[str, Any]) -> Record:
    """The record of a line's values; those it does not know are left out. Raises TypeError."""
    known = {field.name for field in fields(Record)}
    lists = {name: tuple(values.get(name, ())) for name in ("members", "lost", "left", "notes", "joined")}
    return Record(**{**{name: value for name, value in values.items() if name in known}, **lists})


def _parsed(line: str, where: str, *, is_last: bool) -> Record | None:
    try:
        return record_of(json.loads(line))
    except (ValueError, TypeError, AttributeError) as error:
        if is_last:
            return None
        raise DataError(f"{where} is no record of a round ({error})") from error


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
