"""The verb about a cluster's end: extend."""

from __future__ import annotations

import click

from infra.cli import options
from infra.cli.options import Finite, option
from infra.cli.progress import ProgressDisplay
from infra.cli.target import Target
from infra.errors import UsageError


@click.command()
@options.names_a_cluster
@options.reaches_a_cluster
@option("--hours", type=Finite(), help="Let it end so many hours later; -2: two hours sooner.")
@option("--idle-minutes", type=Finite(), help="Let it end after so long without a job; 0: never.")
@option("--budget", type=Finite(), help="Let it end before it has cost more in all, in dollars.")
def extend(where: Target, hours: float | None, idle_minutes: float | None, budget: float | None) -> None:
    """Let a cluster end later, or sooner, than it was launched to; its nodes are told at once."""
    from infra import lifetime

    if hours is None and idle_minutes is None and budget is None:
        raise UsageError("extend needs one of --hours, --idle-minutes and --budget.")
    display = ProgressDisplay()
    cloud = where.require(display.emit)
    now = lifetime.extend(
        cloud, where.name, display.emit, hours=hours, idle_minutes=idle_minutes, budget=budget
    )
    click.echo(f"{where.name} ends itself: {now}")
