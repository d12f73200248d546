"""Rounds as ``sparknet plan`` forecasts them, beside rounds that are measured; needs root.

    ./run bench plan_accuracy                      2 and 4 workers, three links: about 5 minutes
    ./run bench plan_accuracy --args '--workers 2 --links 50:10 --seconds 10'

The measured ones are those of ``slow_network``: workers in network namespaces, links shaped each way. A step
sleeps for ``--step-ms``, so that four workers need no four cores. How long a step takes is taken from the
rounds, and how TCP behaves from the machine's sockets; all else is forecast. Rounds must lie within a tenth
of each other. Beside that stand the speed-ups of SparkNet's paper (``sparknet_paper.py``).
"""

from __future__ import annotations

import os
import sys

import click

from sparknet.simulation.forecast import Way, forecast
from sparknet.simulation.machines import FLOAT_BYTES, Machines
from tests.bench import sparknet_paper
from tests.bench.links import Link, congestion
from tests.bench.slow_network import Job, Trial, run

AIM = 0.1
TAU = 10
WAYS = (
    Way(tau=TAU, exchange="star"),
    Way(tau=TAU, exchange="star", wire="int8"),
    Way(tau=TAU, exchange="ring"),
    Way(tau=TAU, exchange="ring", wire="int8"),
    Way(tau=TAU, exchange="star", overlap=True),
)


def machines_of(link: Link, job: Job, step_seconds: float) -> Machines:
    """What the forecast is told of the namespaces: a link to the driver for each worker."""
    assert link.mbit is not None
    assert job.megabytes is not None
    return Machines(
        parameters=round(job.megabytes * 1e6 / FLOAT_BYTES),
        step_seconds=step_seconds,
        batch_size=1,
        bandwidth=link.mbit * 125e3,
        # the driver is in the middle: its link to each worker has the rate to itself
        driver_bandwidth=job.workers * link.mbit * 125e3,
        latency=2 * link.delay_ms / 1e3,
        driver_latency=link.delay_ms / 1e3,
        congestion=congestion(),
    )


def compared(link: Link, workers: int, megabytes: float, rest: float, seconds: float) -> float:
    """Prints a line for each way; by how much the worst is off, as a share."""
    click.echo(f"\n{workers} workers, {link}, {megabytes:g} MB, load {os.getloadavg()[0]:.1f}")
    click.echo(f"{'':<40}{'measured s':>12}{'forecast s':>12}{'off':>8}")
    worst = 0.0
    for way in WAYS:
        trial = Trial(name=str(way), link=link, wire=way.wire, tau=TAU, overlap=way.overlap)
        job = Job(workers=workers, exchange=way.exchange, megabytes=megabytes, rest=rest, seconds=seconds)
        found = run(trial, job)
        due = forecast(machines_of(link, job, found["step"]), workers, way).round_seconds
        off = due / found["round"] - 1
        worst = max(worst, abs(off))
        click.echo(f"{way!s:<40}{found['round']:>12.3f}{due:>12.3f}{100 * off:>7.1f}%")
    return worst


def _links(text: str) -> list[Link]:
    pairs = [part.split(":") for part in text.split(",")]
    return [Link(mbit=float(mbit), delay_ms=float(delay)) for mbit, delay in pairs]


@click.command(help=__doc__)
@click.option("--workers", "-k", default="2,4", show_default=True)
@click.option(
    "--links",
    default="10:0,10:50,50:10",
    show_default=True,
    metavar="MBIT:MS,...",
    help="Rate, delay one way.",
)
@click.option("--megabytes", type=click.FloatRange(min=0.1), default=0.582312, show_default=True)
@click.option("--step-ms", type=click.FloatRange(min=0), default=10.0, show_default=True)
@click.option("--seconds", type=float, default=4.0, show_default=True, help="To measure, for each row.")
def main(workers: str, links: str, megabytes: float, step_ms: float, seconds: float) -> None:
    click.echo(f"congestion control: {congestion()}")
    worst = max(
        compared(link, int(count), megabytes, step_ms / 1e3, seconds)
        for count in workers.split(",")
        for link in _links(links)
    )
    met = "met" if worst <= AIM else "NOT met"
    click.echo(f"\noff by at most {100 * worst:.1f} %   aim: {100 * AIM:g} %   {met}")
    click.echo(f"\n{sparknet_paper.table()}")
    sys.exit(0 if worst <= AIM else 1)


if __name__ == "__main__":
    main()
