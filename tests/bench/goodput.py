"""What is trained while workers are killed, stopped and slowed, of what those that are there could train.

    ./run bench goodput                                     ten minutes of it
    ./run bench goodput --args '--seconds 60'
    ./run bench goodput --args '--algorithm easgd'

The strikes are those of ``chaos``: in a fifth of the rounds a Python worker, an executor or a whole host of
a Spark standalone cluster is killed, stopped for some seconds or slowed to a fifth. Steps are paced by
sleeping, so that all workers together need less than the machine has; the time in which a process is stopped
is no part of a step. One training is measured twice: first undisturbed, then under strikes. Images count if
they were merged. Printed are their share of

    wall time        what the undisturbed workers make in the same time;
    machines         the same, times the share of machines that are there: one that is stopped, or killed and
                     not replaced yet, is not;
    live workers     the same, times the share of workers whose processes are there and run (``live.py``): the
                     aim is for this one. What Spark takes to start a process is not in it; what that takes
                     to join and to begin is.

Accuracy is compared with that of as many rounds in this process, undisturbed. Exit status 0 if both aims are
reached.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from sparknet.algorithms import ALGORITHMS, algorithm
from sparknet.data import Dataset
from sparknet.data.locate import locate
from sparknet.spark import Deadlines, SparkWorkers, from_examples
from sparknet.training import Round
from tests.bench.chaos import HOW, SHARE, WHOM, Chaos, cluster_and_session, here, recipe
from tests.bench.live import Watch

AIM, POINTS = 0.88, 1.0
# Rounds before anything is counted.
WARM = 5


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Rounds from one moment to another, by ``time.monotonic``, and who was there meanwhile, on average."""

    begin: float
    end: float
    rounds: list[Round]
    workers: float
    machines: float

    @property
    def images(self) -> int:
        return sum(done.images for done in self.rounds)

    @property
    def rate(self) -> float:
        return self.images / (self.end - self.begin)


@dataclass(frozen=True, kw_only=True)
class Ran:
    calm: Stretch
    rough: Stretch
    accuracy: float
    happened: Counter[str]

    @property
    def rounds(self) -> int:
        return self.rough.rounds[-1].number


def run(options: argparse.Namespace, dataset: Dataset) -> Ran:
    """One training, undisturbed for a time, then under strikes."""
    chosen = algorithm(options.algorithm).of(options.hosts)
    settings = chosen.settings(rounds=10**6, tau=options.tau, time_cap_seconds=options.time_cap)
    deadlines = Deadlines(**({} if chosen.refuses.get("quorum") else {"quorum": options.quorum}))
    with cluster_and_session(options.hosts) as (cluster, spark):
        chaos = Chaos(cluster, options.seed, options.how, options.whom)
        data = from_examples(spark, dataset.train, options.hosts)
        made = recipe(options, dataset, options.pause)
        with (
            SparkWorkers(spark, made, data, dataset.test, deadlines=deadlines) as crew,
            Watch(cluster) as watch,
        ):
            rounds = chosen.train(crew, settings, chosen.outer())
            calm = stretch(rounds, watch, options.calm, skip=WARM)
            rough = stretch(rounds, watch, options.seconds, chaos=chaos, log=options.log)
            rounds.close()  # type: ignore[attr-defined]
            chaos.join()
            scores = crew.test(rough.rounds[-1].weights)
    return Ran(calm=calm, rough=rough, accuracy=scores.means["accuracy"], happened=chaos.happened)


def stretch(
    rounds: Iterator[Round],
    watch: Watch,
    seconds: float,
    *,
    skip: int = 0,
    chaos: Chaos | None = None,
    log: Path | None = None,
) -> Stretch:
    for _ in range(skip):
        next(rounds)
    begin, found = time.monotonic(), list[Round]()
    while (end := time.monotonic()) < begin + seconds:
        done = next(rounds)
        found.append(done)
        if log:
            with log.open("a") as file:
                file.write(json.dumps(line_of(done, watch, begin, end)) + "\n")
        if chaos:
            chaos.after(done)
    workers, machines = watch.workers(begin, end), watch.machines(begin, end)
    return Stretch(begin=begin, end=end, rounds=found, workers=workers, machines=machines)


def line_of(done: Round, watch: Watch, begin: float, started: float) -> dict[str, object]:
    now = time.monotonic()
    return {
        "round": done.number,
        "at": round(now - begin, 2),
        "seconds": round(done.seconds, 2),
        "members": done.members,
        "steps": [report.steps for report in done.reports],
        "live": round(watch.workers(started, now), 2) if watch.samples[-1].at > started else None,
        "late": [(report.member, report.steps, round(report.seconds, 2)) for report in done.result.late],
        "lost": done.result.lost,
        "joined": [name.split(" with")[0] for name in done.result.joined],
    }


def shares(ran: Ran, hosts: int) -> dict[str, float]:
    """The images that count, of what there is by each measure."""
    whole = ran.rough.rate / ran.calm.rate
    return {
        "wall time": whole,
        "machines": whole * hosts / ran.rough.machines,
        "live workers": whole * hosts / ran.rough.workers,
    }


def show(ran: Ran, hosts: int) -> None:
    for name, part in (("undisturbed", ran.calm), ("disturbed", ran.rough)):
        losses = sum(len(done.result.lost) for done in part.rounds)
        late = sum(len(done.result.late) for done in part.rounds)
        click.echo(
            f"{name}: {part.end - part.begin:.0f} s, {len(part.rounds)} rounds, {part.images:,} images "
            f"({part.rate:.0f} a second), {losses} losses, {late} late; of {hosts}: "
            f"{part.machines:.2f} machines there, {part.workers:.2f} workers live"
        )
    click.echo(
        "what happened: " + ", ".join(f"{name} {count}" for name, count in sorted(ran.happened.items()))
    )
    click.echo("share of " + ", ".join(f"{name} {share:.3f}" for name, share in shares(ran, hosts).items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600, help="how long to disturb (600)")
    parser.add_argument("--calm", type=float, default=60, help="seconds undisturbed, before (60)")
    parser.add_argument("--hosts", type=int, default=4, help="with a worker each (4)")
    parser.add_argument("--how", nargs="+", choices=HOW, default=HOW, help="what happens (all of it)")
    parser.add_argument("--whom", nargs="+", choices=WHOM, default=WHOM, help="to whom (all of them)")
    parser.add_argument("--algorithm", choices=list(ALGORITHMS), default="average")
    parser.add_argument("--tau", type=int, default=10)
    parser.add_argument("--time-cap", type=float, help="seconds")
    parser.add_argument("--quorum", type=float, default=0.5, help="as docs/ec2.md has it (0.5)")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds added to each step (0.1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", default="auto", help="MNIST: a folder, auto or synthetic")
    parser.add_argument("--log", type=Path, help="a file for a line of JSON about each round")
    options = parser.parse_args()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    warnings.simplefilter("ignore", FutureWarning)
    dataset = locate("mnist", options.data).dataset
    ran = run(options, dataset)
    show(ran, options.hosts)
    plain = here(options, dataset, ran.rounds, algorithm(options.algorithm).of(options.hosts))
    lost = 100 * ((plain[-1].accuracy or 0) - ran.accuracy)
    click.echo(f"accuracy {100 * ran.accuracy:.2f} %, undisturbed {100 * (plain[-1].accuracy or 0):.2f} %")
    found = shares(ran, options.hosts)["live workers"]
    met = found >= AIM and lost <= POINTS
    click.echo(
        f"goodput {found:.3f}, aim {AIM:g}; {lost:.2f} points of accuracy lost, {POINTS:g} allowed; "
        f"{100 * SHARE:g} % of rounds hit: {'met' if met else 'NOT met'}"
    )
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
