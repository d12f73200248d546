"""An app on a Spark standalone cluster that loses a machine or a worker for good trains on, and ends well.

    ./run bench lost_machines                          all cases, about two minutes each
    ./run bench lost_machines --args 'host hang'       some of them

    host    two hosts average among themselves; after round 150 one is killed and never replaced
    hang    after round 50 one of two Python workers is stopped (SIGSTOP) for good
    hang4   the same with four
    kills   four workers average among themselves and test every round; one is killed twice a second or less

Exit status 0 if every app ends with 0 and no traceback, its loss has fallen, and no more rounds were lost at
once than ``--copy-every`` allows.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import pyspark

from sparknet.distributed.averaging import COPY_EVERY
from tests.apps.run_app import APPS, environment
from tests.bench.standalone import Cluster, kill_all, send

_SUBMIT = Path(pyspark.__file__).parent / "bin" / "spark-submit"
_COMMON = ("--data", "synthetic", "--tau", "2", "--batch-size", "16")
_LONGEST_SECONDS = 1800.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """``strike`` is called once after round ``after``."""

    hosts: int
    options: tuple[str, ...]
    after: int
    strike: Callable[[Cluster, threading.Event], None]


def lose_host(cluster: Cluster, _over: threading.Event) -> None:
    cluster.hosts[0].kill()


def stop_worker(cluster: Cluster, _over: threading.Event) -> None:
    send(cluster.hosts[0].pythons[:1], signal.SIGSTOP)


def keep_killing(cluster: Cluster, over: threading.Event) -> None:
    rng = random.Random(1)
    while not over.wait(rng.uniform(0.5, 1.5)):
        kill_all(rng.choice(cluster.hosts).pythons[:1])


CASES = {
    "host": Case(
        hosts=2,
        options=("--workers", "2", "--rounds", "5000", "--test-every", "0", "--exchange", "ring"),
        after=150,
        strike=lose_host,
    ),
    "hang": Case(
        hosts=2,
        options=("--workers", "2", "--rounds", "5000", "--test-every", "0", "--join-deadline", "60"),
        after=50,
        strike=stop_worker,
    ),
    "hang4": Case(
        hosts=4,
        options=("--workers", "4", "--rounds", "3000", "--test-every", "0", "--join-deadline", "60"),
        after=50,
        strike=stop_worker,
    ),
    "kills": Case(
        hosts=4,
        options=("--workers", "4", "--rounds", "60", "--test-every", "1", "--exchange", "ring"),
        after=2,
        strike=keep_killing,
    ),
}


class App:
    """MnistApp on the cluster, and what it said: ``losses`` by round, and the seconds each took."""

    def __init__(self, cluster: Cluster, folder: Path, case: Case, *, address: str = "127.0.0.1") -> None:
        self.cluster, self.case = cluster, case
        self.losses: dict[int, float] = {}
        self.times: list[float] = []
        self._errors = folder / "errors"
        settings = {
            "spark.ui.enabled": "false",
            "spark.driver.host": address,
            "spark.driver.memory": "512m",
            "spark.executor.memory": "512m",
            "spark.local.dir": str(folder),
        }
        with self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                [
                    str(_SUBMIT),
                    *("--master", cluster.url),
                    *(part for name, value in settings.items() for part in ("--conf", f"{name}={value}")),
                    str(APPS / "MnistApp.py"),
                    *(*_COMMON, *case.options, "--output", str(folder / "output")),
                ],
                env=environment(
                    PYSPARK_PYTHON=sys.executable,
                    PYSPARK_DRIVER_PYTHON=sys.executable,
                    SPARK_LOCAL_IP=address,
                ),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def run(self) -> str | None:
        """To its end, or to that of the caller; what was wrong, or None."""
        limit = threading.Timer(_LONGEST_SECONDS, self.process.kill)
        limit.start()
        over = threading.Event()
        try:
            self._follow(over)
            return self.wrong(self.process.wait())
        finally:
            over.set()
            limit.cancel()
            self.process.kill()

    def _follow(self, over: threading.Event) -> None:
        """Read what it says, and strike when it is time."""
        striker = None
        assert self.process.stdout
        for line in self.process.stdout:
            found = re.match(r"round (\d+)/\d+ +loss ([\d.]+)", line)
            if found is None:
                continue
            self.losses[int(found[1])] = float(found[2])
            self.times.append(time.monotonic())
            if striker is None and int(found[1]) >= self.case.after:
                striker = threading.Thread(target=self.case.strike, args=(self.cluster, over))
                striker.start()

    @property
    def longest(self) -> float:
        """Seconds between two rounds, at most, after the first."""
        return max((b - a for a, b in zip(self.times[1:], self.times[2:], strict=False)), default=0.0)

    @property
    def summary(self) -> str:
        return f"longest pause {self.longest:.1f} s, went back {self.rollbacks or 'never'}"

    @property
    def errors(self) -> str:
        return self._errors.read_text(errors="replace")

    @property
    def rollbacks(self) -> list[int]:
        return [int(rounds) for rounds in re.findall(r"from that of (\d+) rounds before", self.errors)]

    def wrong(self, status: int) -> str | None:
        if status:
            return f"exit status {status} after {len(self.losses)} rounds: {self.errors[-800:]}"
        if "Traceback" in self.errors:
            return f"a traceback: {self.errors[-2000:]}"
        if any(rounds > COPY_EVERY for rounds in self.rollbacks):
            return f"went back {max(self.rollbacks)} rounds, {COPY_EVERY} at most were promised"
        rounds = sorted(self.losses)
        first, last = (sum(self.losses[n] for n in part) / 10 for part in (rounds[:10], rounds[-10:]))
        return (
            None if last < first else f"the loss was {first:.3f} in the beginning and {last:.3f} in the end"
        )


def run(name: str, rounds: int) -> str | None:
    case = CASES[name]
    if rounds:
        case = replace(case, options=(*case.options, "--rounds", str(rounds)))
    with (
        tempfile.TemporaryDirectory(prefix="sparknet-lost-", ignore_cleanup_errors=True) as made,
        Cluster(Path(made), case.hosts) as cluster,
    ):
        app = App(cluster, Path(made), case)
        wrong = app.run()
        last = app.losses[max(app.losses)] if app.losses else float("nan")
        click.echo(f"{name}: {len(app.losses)} rounds, loss {last:.3f}, {app.summary}: {wrong or 'well'}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=0, help="instead of each case's own: on a busy machine")
    options = parser.parse_args()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    wrong = [run(name, options.rounds) for name in options.cases or CASES]
    sys.exit(1 if any(wrong) else 0)


if __name__ == "__main__":
    main()
