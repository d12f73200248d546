"""``kill -9`` of a driver at random points, and again of the one in its place; what it leaves must go."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import click
import psutil

from tests.apps.run_app import APPS, environment

EVERY = 3
"""Rounds between two checkpoints: no kill may cost more."""

_COMMON = ("--data", "synthetic", "--tau", "2", "--batch-size", "20", "--workers", "2", "--test-every", "0")
_START_SECONDS = 300.0


class Driver:
    """An app in a process of its own; ``started_from`` and ``last`` are rounds, by its lines."""

    def __init__(self, folder: Path, rounds: int, output: str, *options: str) -> None:
        self.started_from, self.last = 0, 0
        self._errors = folder / "errors"
        with self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    str(APPS / "MnistApp.py"),
                    *_COMMON,
                    "--rounds",
                    str(rounds),
                    "--output",
                    output,
                    *options,
                ],
                cwd=folder,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.limit = threading.Timer(_START_SECONDS, self.process.kill)
        self.limit.start()

    def read_until(self, round_: int) -> bool:
        """Read its lines until it has done ``round_`` rounds of its own; False if it ended before."""
        assert self.process.stdout
        for line in self.process.stdout:
            if match := re.match(r"going on after round (\d+)", line):
                self.started_from = self.last = int(match[1])
            if match := re.match(r"round (\d+)/", line):
                self.last = int(match[1])
                if self.last - self.started_from >= round_:
                    return True
        return False

    def kill(self) -> None:
        """Only the driver: what it leaves behind must go by itself, or not matter."""
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        self.read_until(10**9)  # what it has still to say
        self.limit.cancel()
        with self.process:
            return self.process.wait()

    def descendants(self) -> set[psutil.Process]:
        """Known by more than their number, which the next process may have."""
        return set(psutil.Process(self.process.pid).children(recursive=True))

    @property
    def errors(self) -> str:
        return self._errors.read_text()


def kill_drivers(times: int, seed: int) -> str | None:
    """What was wrong, or None. Ends with a comparison: the weights are those of a run that nobody killed."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="sparknet-driver-", ignore_cleanup_errors=True) as name:
        folder, last, worst = Path(name), 0, 0
        saved = ("--checkpoint", "saved", "--checkpoint-every", str(EVERY), "--resume")
        for number in range(times):
            driver = Driver(folder, 10**6, "killed", *saved)
            left = driver.descendants()
            if not driver.read_until(rng.randint(1, 2 * EVERY)):
                return f"driver {number + 1} ended by itself: {driver.errors[-500:]}"
            left |= driver.descendants()
            time.sleep(rng.uniform(0, 0.3))
            if driver.started_from < last - EVERY:
                return f"round {last} was done, and driver {number + 1} went on after {driver.started_from}"
            worst = max(worst, last - driver.started_from)
            driver.kill()
            click.echo(f"{number + 1}: went on after {driver.started_from}, killed after {driver.last}")
            last = driver.last
            if wrong := _left_of(left):
                return wrong
        rounds = last + 3
        ways = [Driver(folder, rounds, "killed", *saved), Driver(folder, rounds, "straight")]
        if any(way.wait() for way in ways):
            return f"the last driver failed: {ways[0].errors[-500:]}"
        models = [(folder / way / "model.caffemodel").read_bytes() for way in ("killed", "straight")]
        click.echo(f"{times} kills in {rounds} rounds, at most {worst} rounds lost")
        return None if models[0] == models[1] else "the weights are not those of a run that nobody killed"


def _left_of(processes: set[psutil.Process], seconds: float = 60.0) -> str | None:
    """The JVM and the workers of a dead driver end by themselves; the others are killed and reported."""
    _, left = psutil.wait_procs(processes, timeout=seconds)
    for process in left:
        process.kill()
    pids = sorted(process.pid for process in left)
    return f"{pids} of a killed driver were still there after {seconds:g} s" if left else None
