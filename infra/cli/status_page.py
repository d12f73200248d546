"""Status page: how a cluster looks, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from infra.cli.format import counted, table

if TYPE_CHECKING:
    from infra.cloud import Cloud
    from infra.costs import Cost
    from infra.history import Life, Run
    from infra.jobs.progress import RunningJob
    from infra.status import Status

ENDED_SHOWN = 8  # of the nodes that have ended, the last; JSON has all
HEADINGS = ("node", "id", "state", "type", "bought", "zone", "private", "public", "spark", "ended")


def text(found: Status, cloud: Cloud, place: str) -> str:
    """All of it, as a page."""
    return "\n".join(_lines(found, cloud, place))


def values(found: Status) -> dict[str, Any]:
    """All of it, for JSON."""
    return {
        "status": {"cluster": found.cluster, "health": found.health},
        "asked": found.asked,
        "missing": found.missing,
        "runs": found.runs,
        "notices": found.notices,
        "jobs": found.jobs,
        "cost": found.bill.cost,
        "lifetime": found.lifetime,
        "healing": found.healing,
        "bucket": found.bill.life.bucket,
        "left": found.bill.left,
        "troubles": found.troubles,
    }


def money(cost: Cost) -> str:
    """What it has cost and costs, as a line."""
    ended = f", ${cost.ended:.2f} of it for nodes that have ended" if cost.ended >= 0.005 else ""
    unknown = f"; without {', '.join(cost.unknown)}, whose price is unknown" if cost.unknown else ""
    return f"cost: about ${cost.so_far:.2f} so far{ended} at ${cost.per_hour:.2f} an hour{unknown}"


def lives(past: Sequence[Life]) -> str:
    """A table of clusters that were looked at, those that are gone too."""
    rows = [
        (
            one.cluster,
            one.region,
            moment(one.created),
            moment(one.destroyed) if one.destroyed else "",
            len({run.id for run in one.runs}),
            f"${one.dollars:.2f}" + ("" if one.destroyed else f" by {moment(one.seen)}"),
        )
        for one in past
    ]
    return table(("cluster", "region", "launched", "destroyed", "nodes", "cost"), rows)


def moment(iso: str) -> str:
    """A moment as people read it."""
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M} UTC" if iso else ""


def _lines(found: Status, cloud: Cloud, place: str) -> Iterator[str]:
    now = cloud.region.now()
    name = found.cluster.name
    yield f"{name} in {place}"
    shown, hidden = _shown(found.runs)
    yield table(HEADINGS, [_row(found, run) for run in shown])
    if hidden:
        yield f"and {counted(hidden, 'node')} that ended before (--json shows all)"
    if found.missing and found.cluster.nodes:
        names = ", ".join(found.missing)
        cure = f"{cloud.command('repair', name)} brings back what is missing"
        yield f"{names} of {counted(len(found.asked), 'worker')} missing; {cure}"
    if not found.cluster.nodes:
        yield from _remains(found, cloud)
    else:
        yield f"Spark: {_spark(found)}"
    yield from (_job(one, now) for one in found.jobs)
    yield money(found.bill.cost)
    yield f"ends itself: {found.lifetime}"
    yield f"healing: {found.healing}"
    if found.bill.life.bucket:
        yield f"jobs save in: s3://{found.bill.life.bucket}"
    yield from (f"NOTICE: {one}" for one in found.notices.values())
    yield from (f"TROUBLE: {one}" for one in found.troubles)
    if found.troubles:
        yield f"{cloud.command('repair', name)} puts other nodes in their place."


def _shown(runs: Sequence[Run]) -> tuple[list[Run], int]:
    """Those that live, the last that ended, and how many more did."""
    gone = [run for run in runs if run.is_gone]
    hidden = set(map(id, gone[ENDED_SHOWN:]))
    return [run for run in runs if id(run) not in hidden], len(hidden)


def _row(found: Status, run: Run) -> tuple[str, ...]:
    node = next((one for one in found.cluster.nodes if one.id == run.id), None)
    ended = ""
    if run.ended:
        about = "" if run.is_exact else "by "
        ended = f"{about}{moment(run.ended)}" + (f": {run.why}" if run.why else "")
    return (
        run.name,
        run.id,
        (run.state or "gone") if not run.is_gone else "ended",
        run.instance_type,
        run.purchase,
        run.zone,
        node.private_ip if node else "",
        node.public_ip if node else "",
        found.spark_of(run),
        ended,
    )


def _remains(found: Status, cloud: Cloud) -> Iterator[str]:
    yield f"No node is left, but of {found.cluster.name} there still is:"
    yield from (
        f"    {one.kind} {one.id}" + (f" ({one.name})" if one.name else "") for one in found.bill.left
    )
    yield f"{cloud.command('destroy', found.cluster.name)} removes it"


def _spark(found: Status) -> str:
    health = found.health
    if health is None or health.status == "DOWN":
        return "not running"
    parts = [
        health.status,
        counted(health.workers, "worker"),
        counted(health.cores, "core"),
        f"{health.memory_mib:,} MiB",
        *([counted(health.gpus, "GPU")] if health.gpus else []),
    ]
    return ", ".join(parts) + (f"; running {', '.join(health.applications)}" if health.applications else "")


def _job(one: RunningJob, now: datetime) -> str:
    if not one.rounds:
        return f"job {one.id}: runs since {one.started}; no round is over yet"
    parts = [
        f"round {one.round}/{one.rounds}",
        *([f"loss {one.loss:.4f}"] if one.loss is not None else []),
        *([f"accuracy {100 * one.accuracy:.1f} %"] if one.accuracy is not None else []),
        *([f"{one.images_per_second:,.0f} images/s"] if one.images_per_second is not None else []),
        *([f"ends about {_when(one.ends, now)}"] if one.ends else []),
    ]
    return f"job {one.id}: {', '.join(parts)}"


def _when(iso: str, now: datetime) -> str:
    """A moment, and how far off it is.

    >>> _when("2026-11-30T12:40:00+00:00", datetime.fromisoformat("2026-11-30T11:05:00+00:00"))
    '2026-11-30 12:40 UTC, in 1 h 35 min'
    """
    left = datetime.fromisoformat(iso) - now
    minutes = max(0, round(left / timedelta(minutes=1)))
    hours, minutes = divmod(minutes, 60)
    far = f"{hours} h {minutes} min" if hours else f"{minutes} min"
    return f"{moment(iso)}, {f'in {far}' if left > timedelta(0) else 'which is over'}"
