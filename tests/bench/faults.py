"""Training under faults that seeds draw, compared with a model element by element: how many seeds pass?

    ./run bench faults                                   seeds 0 to 199
    ./run bench faults --args '--first 1000 --seeds 2000'
    ./run bench faults --args '--mode ring --seeds 500'
    ./run bench faults --args '--mode ring --gradients --seeds 500'
    ./run bench faults --args '--replay 17 --log'        one of them, and what it logged

Exit status 0 if all passed; else 1, and each that failed is told with what was wrong, and its plan, which
``--keep`` adds to ``tests/sparknet/distributed/faults/failed.jsonl`` for ever.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
from collections import Counter
from pathlib import Path

import click

from tests.sparknet.distributed.faults.plan import MODES, Plan
from tests.sparknet.distributed.faults.runner import run_all

FAILED = Path(__file__).parents[1] / "sparknet/distributed/faults/failed.jsonl"
"""The plans that ever failed, a line each: a seed alone would draw another plan once drawing changes."""


def kept() -> list[Plan]:
    lines = FAILED.read_text().splitlines() if FAILED.exists() else []
    return [Plan.of(json.loads(line)) for line in lines]


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the runs end with it
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--seeds", type=int, default=200, help="how many (200)")
    parser.add_argument("--mode", choices=MODES, help="only this one (drawn by the seed)")
    parser.add_argument("--gradients", action="store_true", help="only rounds in which these are averaged")
    parser.add_argument("--at-once", type=int, default=6, help="runs at a time (6)")
    parser.add_argument("--replay", type=int, nargs="+", help="these seeds alone")
    parser.add_argument("--kept", action="store_true", help="those that ever failed")
    parser.add_argument("--keep", action="store_true", help="remember those that fail")
    parser.add_argument("--log", action="store_true", help="show what the runs that failed logged")
    options = parser.parse_args()
    seeds = options.replay or range(options.first, options.first + options.seeds)
    plans = (
        kept()
        if options.kept
        else [Plan.drawn(seed, options.mode, gradients=options.gradients) for seed in seeds]
    )
    sys.exit(0 if told(plans, options) else 1)


def told(plans: list[Plan], options: argparse.Namespace) -> bool:
    started, faults, passed, rounds = time.monotonic(), Counter[str](), Counter[str](), 0
    failed: list[Plan] = []
    for ran in run_all(plans, options.at_once):
        faults += ran.outcome.faults
        rounds += ran.outcome.rounds
        passed[ran.plan.mode] += not ran.outcome.wrong
        if ran.outcome.wrong:
            failed.append(ran.plan)
            click.echo(f"seed {ran.plan.seed}: {ran.plan}")
            for wrong in ran.outcome.wrong[:8]:
                click.echo(f"    {wrong}")
        if options.log and (ran.outcome.wrong or options.replay):
            click.echo(ran.log)
    if options.keep and failed:
        with FAILED.open("a") as file:
            file.writelines(json.dumps(plan.told()) + "\n" for plan in failed)
    by_mode = ", ".join(f"{mode} {count}" for mode, count in sorted(passed.items()))
    click.echo(
        f"{len(plans) - len(failed)} of {len(plans)} runs passed ({by_mode}): {rounds} rounds, "
        f"{faults.total()} faults, {time.monotonic() - started:.0f} s"
    )
    click.echo("what happened: " + ", ".join(f"{name} {count}" for name, count in sorted(faults.items())))
    if failed:
        click.echo(f"FAILED: {' '.join(str(plan.seed) for plan in failed)}")
    return not failed


if __name__ == "__main__":
    main()
