"""Rounds as ``sparknet plan`` forecasts them, beside rounds that are measured; needs root.

    ./run bench plan_accuracy                      links of 10 Mbit/s: about 3 minutes
    ./run bench plan_accuracy --args '--mbit 50 --delay-ms 5'

The measured ones are those of ``slow_network``: workers in network namespaces, links shaped each way. How
long a step takes is taken from them; all else is forecast. Rounds must lie within a tenth of each other.
"""

from __future__ import annotations

import os
import sys

import click

from sparknet.simulation.forecast import Way, forecast
from sparknet.simulation.machines import FLOAT_BYTES, Machines
from tests.bench.links import Link
from tests.bench.slow_network import Job, Trial, run

AIM = 0.1
WAYS = (
    Way(tau=10, exchange="star"),
    Way(tau=10, exchange="star", wire="int8"),
    Way(tau=10, exchange="ring"),
    Way(tau=10, exchange="star", overlap=True),
)


@click.command(help=__doc__)
@click.option("--workers", "-k", type=click.IntRange(min=2), default=2, show_default=True)
@click.option("--mbit", type=click.FloatRange(min=0.1), default=10.0, show_default=True)
@click.option("--delay-ms", type=click.FloatRange(min=0), default=0.0, show_default=True, help="One way.")
@click.option("--megabytes", type=click.FloatRange(min=0.1), default=0.582312, show_default=True)
@click.option("--seconds", type=float, default=10.0, show_default=True, help="To measure, for each row.")
def main(workers: int, mbit: float, delay_ms: float, megabytes: float, seconds: float) -> None:
    link, worst = Link(mbit=mbit, delay_ms=delay_ms), 0.0
    click.echo(f"{workers} workers, {link}, {megabytes:g} MB, load {os.getloadavg()[0]:.1f}")
    click.echo(f"{'':<40}{'measured s':>12}{'forecast s':>12}{'off':>8}")
    for way in WAYS:
        trial = Trial(name=str(way), link=link, wire=way.wire, tau=10, overlap=way.overlap)
        job = Job(workers=workers, exchange=way.exchange, megabytes=megabytes, seconds=seconds)
        found = run(trial, job)
        machines = Machines(
            parameters=round(megabytes * 1e6 / FLOAT_BYTES),
            step_seconds=found["step"],
            batch_size=1,
            bandwidth=mbit * 125e3,
            # the driver is in the middle: its link to each worker has the rate to itself
            driver_bandwidth=workers * mbit * 125e3,
            latency=delay_ms / 1e3 * (2 if way.exchange == "ring" else 1),
        )
        due = forecast(machines, workers, way).round_seconds
        off = due / found["round"] - 1
        worst = max(worst, abs(off))
        click.echo(f"{way!s:<40}{found['round']:>12.3f}{due:>12.3f}{100 * off:>7.1f}%")
    click.echo(
        f"off by at most {100 * worst:.1f} %   aim: {100 * AIM:g} %   {'met' if worst <= AIM else 'NOT met'}"
    )
    sys.exit(0 if worst <= AIM else 1)


if __name__ == "__main__":
    main()
