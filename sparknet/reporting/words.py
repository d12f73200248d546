"""What a page says in words and numbers: rows of its tables, made of a ``Run``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sparknet.reporting.metrics import Record, clock, percent
from sparknet.reporting.progress import seconds_left
from sparknet.reporting.roster import WorkerRow
from sparknet.reporting.run import Run
from sparknet.reporting.watch import is_departure, is_straggler
from sparknet.usage import Usage

Rows = Sequence[tuple[str, str]]

COLUMNS = ("State", "Shard", "Round", "Processor", "Memory", "Spilled", "Network", "GPU")
"""Of the table of workers, after the worker's own."""

# Events that a page shows at most, the last ones.
_EVENTS = 200
_UNKNOWN = "\N{EN DASH}"


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that befell the run in ``round``: ``kind`` is "lost", "reclaimed", "joined",
    "straggler" or "note"."""

    round: int
    time: str
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A ``text``, perhaps with a share (0 to 1) to be drawn, and ``more`` in small print."""

    text: str
    share: float | None = None
    more: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A worker of the table: its number, its host, and a cell for each of ``COLUMNS``."""

    number: int
    host: str
    cells: Sequence[tuple[str, Cell]]


def figures(run: Run) -> list[tuple[str, str, str]]:
    """(name, value, unit) of what is to be seen first."""
    if not run.records:
        return [("Round", "0", ""), ("Waiting for", "the first round", "")]
    last, scored = run.last, run.accuracy
    found = [
        ("Round", f"{last.round:,}", f"of {last.rounds:,}"),
        ("Training loss", "not a number" if last.loss is None else f"{last.loss:.4f}", ""),
    ]
    if scored:
        name = f"Test accuracy{', synthetic data' if run.synthetic else ''}"
        found.append((name, f"{100 * (scored.accuracy or 0):.1f} %", ""))
    found += [
        ("Images a second", f"{last.images_per_second:,.0f}", ""),
        ("Workers", str(last.workers), ""),
        ("Elapsed", clock(last.elapsed_seconds), ""),
    ]
    left = None if run.is_over else seconds_left(run.records)
    return found if left is None else [*found, ("Left, about", clock(left), "")]


def events(run: Run) -> list[Event]:
    """The newest first."""
    found = [event for record in run.records for event in _events_of(record)]
    return found[: -_EVENTS - 1 : -1]


def _events_of(record: Record) -> Iterator[Event]:
    def event(kind: str, text: str) -> Event:
        return Event(round=record.round, time=clock(record.elapsed_seconds), kind=kind, text=text)

    yield from (event("joined", text) for text in record.joined)
    yield from (event("lost", text) for text in record.lost)
    yield from (event("reclaimed", f"{text}: its machine is taken back") for text in record.left)
    notes = [text for text in record.notes if not is_departure(text)]
    yield from (event("straggler" if is_straggler(text) else "note", text) for text in notes)


def workers(run: Run) -> list[Row]:
    """A row for every worker there has been."""
    return [
        Row(
            number=row.number,
            host=row.usage.host if row.usage else "",
            cells=list(zip(COLUMNS, _cells(row, is_over=run.is_over), strict=True)),
        )
        for row in run.workers
    ]


def _cells(row: WorkerRow, *, is_over: bool) -> list[Cell]:
    state = "done" if is_over and row.state in ("training", "slow") else row.state
    waited = f"{row.data_seconds:.2f} s for data" if row.data_seconds >= 0.01 else ""
    took = Cell(text=f"{row.round:,}", more=", ".join(filter(None, [f"{row.seconds:.2f} s", waited])))
    known = _machine_cells(row.usage) if row.usage else [Cell(text=_UNKNOWN)] * 5
    records = f"{row.usage.records:,} records" if row.usage else ""
    return [Cell(text=state), Cell(text=str(row.shard), more=records), took, *known]


def _machine_cells(usage: Usage) -> list[Cell]:
    spilled = Cell(text=size(usage.spilled_bytes), more=f"{size(usage.spill_free)} free")
    memory = usage.used_memory / max(usage.total_memory, 1)
    gpu = Cell(
        text=f"{usage.gpu_load:.0%}",
        share=usage.gpu_load,
        more=f"{size(usage.gpu_memory)} of {size(usage.gpu_total_memory)}, {usage.gpu}",
    )
    return [
        Cell(
            text=f"{usage.busy_cores:.1f} cores",
            share=usage.load,
            more=f"machine {usage.load:.0%} of {usage.cores}",
        ),
        Cell(
            text=size(usage.memory), share=memory, more=f"machine {memory:.0%} of {size(usage.total_memory)}"
        ),
        spilled if usage.spilled_bytes else Cell(text="none", more=f"{size(usage.spill_free)} free"),
        Cell(text=f"in {size(usage.received)}/s", more=f"out {size(usage.sent)}/s"),
        gpu if usage.gpu else Cell(text="none"),
    ]


def scores(run: Run) -> Rows:
    if not run.tested:
        return [("test", "none so far" if not run.is_over else "none was asked for")]
    last = run.tested[-1]
    rows = [(name, _score(name, value, run.synthetic)) for name, value in last.scores.items()]
    return [("tested after round", str(last.round)), *rows]


def _score(name: str, value: float | None, synthetic: bool) -> str:
    if value is None:
        return "not a number"
    return percent(value, synthetic) if "accuracy" in name.lower() else f"{value:.4f}"


def time(run: Run) -> list[tuple[str, str, float | None]]:
    """Seconds of the whole run by what they were spent on with their share, and what came of them."""
    if not run.records:
        return []
    records = run.records
    total = max(run.last.elapsed_seconds, 1e-9)
    parts = {
        "computing (slowest worker)": sum(r.compute_seconds for r in records),
        "exchanging weights": sum(r.exchange_seconds for r in records),
        "starting workers": sum(r.joining_seconds for r in records),
        "testing": sum(r.test_seconds for r in records),
    }
    parts["all else"] = max(0.0, total - sum(parts.values()))
    return [
        *(
            (name, f"{part:,.1f} s ({100 * part / total:.0f} %)", part / total)
            for name, part in parts.items()
        ),
        ("in all", f"{total:,.1f} s", None),
        ("waiting for the slowest, per worker", f"{sum(r.wait_seconds for r in records):,.1f} s", None),
        ("training images", _images(records), None),
        ("bytes sent, received", ", ".join(map(size, _bytes(records))), None),
    ]


def _images(records: Sequence[Record]) -> str:
    images, seconds = sum(r.images for r in records), sum(r.seconds - r.joining_seconds for r in records)
    return f"{images:,} ({images / max(seconds, 1e-9):,.0f} a second)"


def _bytes(records: Sequence[Record]) -> tuple[int, int]:
    return sum(r.bytes_sent for r in records), sum(r.bytes_received for r in records)


def machines(run: Run) -> Rows:
    """The cluster, its machines by kind and what they cost, and those that the workers have told of."""
    rows: list[tuple[str, str]] = []
    cluster = run.cluster
    if cluster:
        rows.append(("cluster", f"{cluster.name}{f' in {cluster.region}' if cluster.region else ''}"))
        rows += [(f"{count} \N{MULTIPLICATION SIGN}", kind) for kind, count in cluster.machines.items()]
    hosts = {row.usage.host: row.usage for row in run.workers if row.usage}
    rows += [(host, _machine(usage)) for host, usage in sorted(hosts.items())]
    if cluster and cluster.per_hour is not None:
        elapsed = run.records[-1].elapsed_seconds if run.records else 0.0
        billed = " (simulated: nobody is billed)" if cluster.simulated else ""
        rows.append(("cost", f"about ${cluster.per_hour:,.2f} an hour{billed}"))
        rows.append(("this run", f"about ${cluster.per_hour * elapsed / 3600:,.2f}"))
    return rows or [("machines", "none has told of itself yet")]


def _machine(usage: Usage) -> str:
    parts = [f"{usage.cores} cores", size(usage.total_memory), usage.gpu]
    return ", ".join(filter(None, parts))


def size(count: float) -> str:
    """
    >>> size(512), size(77 * 2**20), size(3.5 * 2**30)
    ('512 B', '77.0 MiB', '3.5 GiB')
    """
    for unit, bytes_ in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= bytes_:
            return f"{count / bytes_:,.1f} {unit}"
    return f"{count:.0f} B"
