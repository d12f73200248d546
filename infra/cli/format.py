"""How it looks: events while they happen, tables of what there is, progress of a job.

What happens goes to stderr, what was asked for to stdout: ``sparknet-ec2 status --json | jq`` sees JSON
alone.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import click

from infra.spec import ON_DEMAND, SPOT

if TYPE_CHECKING:
    from infra.costs import Storage
    from infra.ec2.quotas import QuotaLine
    from infra.orphans import Orphan
    from infra.plan import Plan

WAYS = {(SPOT,): "spot", (SPOT, ON_DEMAND): "spot, otherwise on demand", (ON_DEMAND,): "on demand"}
_OTHERWISE = {ON_DEMAND: "--fallback on-demand", SPOT: "spot machines"}


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest cell, two spaces apart; on a terminal no wider than that."""
    if sys.stdout.isatty():
        return fitted_table(headings, rows, columns=shutil.get_terminal_size().columns)
    cells = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def fitted_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, columns: int) -> str:
    """A table for a terminal that is so wide; cells that do not fit are folded."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        made.add_column(heading, overflow="fold")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))  # as text: brackets are no markup
    target = io.StringIO()
    # rich itself heeds NO_COLOR and TERM=dumb
    Console(file=target, width=columns, force_terminal=True, highlight=False).print(made)
    return "\n".join(line.rstrip() for line in target.getvalue().splitlines())


def plan(found: Plan) -> str:
    """What a launch would make, and what is wrong with it."""
    spec, survey = found.spec, found.survey
    rows = [
        (
            price.pool.instance_type,
            price.pool.zone,
            dollars(price.spot),
            dollars(price.on_demand.dollars if price.on_demand else None),
            price.on_demand.source if price.on_demand else "",
        )
        for price in found.pools
    ]
    quotas = [_quota(line, found) for line in found.quotas]
    disk = spec.spill
    return "\n".join(
        (
            f"{spec.name} in {spec.region}, as {found.account}",
            f"  master   1 {survey.master_places[0].instance_type}, on demand, "
            f"{dollars(found.master.dollars if found.master else None)} an hour",
            f"  workers  {spec.workers} of one of these pools, {WAYS[spec.purchase.ways]}",
            f"  volumes  {spec.nodes * disk.count} {disk.type} of {disk.size_gib} GiB, encrypted, gone with "
            f"their nodes; with {survey.image.root_gib} GiB of each root {dollars(found.storage)} an hour",
            f"  image    {survey.image.id}  {survey.image.name}",
            f"  network  {survey.subnets[0].vpc_id}; ssh from {found.ssh_from}",
            *(f"  note     {note}" for note in survey.notes),
            "",
            table(("type", "zone", "spot now", "on demand", "from"), rows),
            "",
            *quotas,
            f"the cluster: {dollars(found.spot_now)} an hour now, at most {dollars(found.on_demand)}"
            + (
                f"; at most {dollars(found.worst_case)} until it ends itself after "
                f"{found.hours_at_most:.4g} hours"
                + (f", or {spec.idle_minutes:g} minutes without a job" if spec.idle_minutes else "")
                if found.worst_case is not None
                else "; it does not end itself"
            ),
            *(f"PROBLEM: {problem}" for problem in found.problems),
        )
    )


def _quota(line: QuotaLine, found: Plan) -> str:
    need, bought = line.need, found.spec.purchase
    limit = "limit unknown" if line.limit is None else f"limit {line.limit:g}"
    is_asked = need.purchase in bought.ways or need.family == "Standard"
    verdict = "TOO SMALL" if is_asked else f"too small for {_OTHERWISE[need.purchase]}"
    return (
        f"quota  {need.code}  {need.family} {need.purchase}: {need.vcpus} vCPUs needed, "
        f"{line.used} in use, {limit}{'' if line.is_enough else f'  {verdict}'}"
    )


def orphans(found: Sequence[Orphan]) -> str:
    """A table of what nobody can use."""
    rows = [
        (
            one.cluster,
            one.region,
            one.reason,
            ", ".join(f"{count} {kind}" for kind, count in Counter(r.kind for r in one.resources).items()),
            dollars(one.dollars_per_hour),
        )
        for one in found
    ]
    return table(("cluster", "region", "why", "left of it", "an hour"), rows)


def images(found: Storage) -> str:
    """What our own images cost, which no cluster's price has in it."""
    count = counted(found.images, "image")
    return (
        f"{count} of our own in {found.region}, {found.gib} GiB: at most ${found.per_month:.2f} a month "
        "(sparknet-ec2 image list)"
    )


def dollars(amount: float | None) -> str:
    return "unknown" if amount is None else f"${amount:.3f}"


def print_json(value: object, *, indent: int | None = 2) -> None:
    """``value`` as JSON, dataclasses as objects; without ``indent`` on one line."""
    click.echo(json.dumps(value, indent=indent, default=_plain))


def plan_values(found: Plan) -> dict[str, Any]:
    """The plan for ``print_json``, with what follows from its values."""
    quotas = [
        {"code": line.need.code, **_plain(line.need), "used": line.used, "limit": line.limit}
        | {"is_enough": line.is_enough}
        for line in found.quotas
    ]
    problems = [{"message": str(one), "exit_status": one.exit_status} for one in found.problems]
    return {**_plain(found), "quotas": quotas, "problems": problems, "worst_case": found.worst_case}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    return str(value)


def byte_size(count: int) -> str:
    """So many bytes.

    >>> byte_size(1), byte_size(12_345), byte_size(2_100_000_000)
    ('1 byte', '12 kB', '2.1 GB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if unit == "GB" else f"{count / size:.0f} {unit}"
    return counted(count, "byte")


def counted(number: int, noun: str) -> str:
    """So many of them.

    >>> counted(1, "worker"), counted(2, "worker")
    ('1 worker', '2 workers')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
