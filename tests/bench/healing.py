"""What lost workers cost a training whose cluster heals, beside the same training undisturbed.

    python -m tests.bench.healing                                  four workers, process hosts; ten minutes
    python -m tests.bench.healing --hosts namespaces --seconds 300
    python -m tests.bench.healing --workers 2 --seconds 60         small

Each run trains LeNet on drawn data for so many seconds from its first round of all members. In the second
one EC2 takes a worker back with notice after a quarter of that time, and another without after half of it.
Images are counted by the job's own metrics. The least there should be: the undisturbed run's, less one round
of the worker that was lost without notice, and the share of each that was away until its replacement joined.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from tests.infra.living_cluster import LivingCluster

Rounds = Sequence[dict[str, Any]]
NOTICE_SECONDS = 20.0


@click.command()
@click.option("--workers", default=4, show_default=True, help="At least two.")
@click.option("--seconds", default=180.0, show_default=True, help="Of training, in each run.")
@click.option("--hosts", type=click.Choice(["processes", "namespaces"]), default="processes")
def main(workers: int, seconds: float, hosts: str) -> None:
    """Train undisturbed, then with two workers taken back, and compare."""
    calm = run(workers, seconds, hosts, disturbed=False)
    rough = run(workers, seconds, hosts, disturbed=True)
    away = away_seconds(rough, workers)
    whole, one_round = images(calm), images(calm) / len(calm) / workers
    least = whole * (1 - away / (workers * seconds)) - one_round
    report("undisturbed", calm)
    report("healed", rough)
    click.echo(f"workers were away for {away:.0f} s together, of {workers * seconds:.0f} s")
    verdict = "met" if images(rough) >= least else "NOT met"
    click.echo(f"images at least {least:,.0f}, were {images(rough):,}: {verdict}")
    click.echo(f"as wall time: {seconds * (1 - images(rough) / whole):.0f} s of {seconds:.0f} s lost")


def run(workers: int, seconds: float, hosts: str, *, disturbed: bool) -> Rounds:
    """The rounds of a training of so many seconds."""
    with living(hosts) as life:
        life.run("launch", "-s", str(workers), *(["--heal"] if disturbed else []), life.name)
        life.start_job(shards=workers)
        life.until_members(workers)
        first, began = life.rounds[-1]["round"], time.monotonic()
        for share, name, notice in ((0.25, "worker-1", NOTICE_SECONDS), (0.5, "worker-2", 0.0)):
            time.sleep(max(0.0, began + share * seconds - time.monotonic()))
            if disturbed:
                life.reclaim(name, notice_seconds=notice)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        rounds = [one for one in life.rounds if one["round"] > first]
        end = rounds[0]["elapsed_seconds"] + seconds
        return [one for one in rounds if one["elapsed_seconds"] <= end]


@contextmanager
def living(hosts: str) -> Iterator[LivingCluster]:
    with tempfile.TemporaryDirectory(prefix="sparknet-healing-", ignore_cleanup_errors=True) as folder:
        life = LivingCluster(Path(folder) / "home", hosts)
        try:
            yield life
        finally:
            life.end()


def images(rounds: Rounds) -> int:
    return sum(int(one["images"]) for one in rounds)


def away_seconds(rounds: Rounds, workers: int) -> float:
    """Of all workers together: the time of rounds that had fewer members."""
    return sum(
        (after["elapsed_seconds"] - before["elapsed_seconds"]) * (workers - len(after["members"]))
        for before, after in pairwise(rounds)
    )


def report(name: str, rounds: Rounds) -> None:
    lost = sum(len(one["lost"]) for one in rounds)
    left = sum(len(one["left"]) for one in rounds)
    click.echo(
        f"{name:<12} {len(rounds):>6} rounds  {images(rounds):>10,} images  loss {rounds[-1]['loss']:.4f}  "
        f"{lost} lost, {left} left in order"
    )


if __name__ == "__main__":
    main()
