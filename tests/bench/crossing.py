"""Command lines of the apps, every option crossed at random: none hangs, none does something else in silence.

    ./run bench crossing                                      100 seeds
    ./run bench crossing --args '--seeds 2000 --first 500'
    ./run bench crossing --args '--minutes 60'                as many as there is time for
    ./run bench crossing --args '--replay 17 23'              these alone, with their lines
    ./run bench crossing --args '--programs 20'               each twentieth as programs of their own

A seed draws a command line, or several that go on from each other's checkpoints, from the options that the
apps have. Each is either refused in one sentence before training, with the exit status that the documentation
has and no file left behind, or it runs to its end on a real Spark, and what report, metrics, bytes and
weights say is what was asked for: the weights are those of the same run in one process, bit for bit in a
star. ``Trainer(...)`` is given the same values, and refuses the same. A seed that takes longer than
``--deadline`` is a fault, and its process is ended. Exit status 0 if nothing was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click

ROOT = Path(__file__).resolve().parents[2]
SLOTS = 3
"""Tasks that the Spark of the draws has room for."""

_END_SECONDS = 20.0


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what plays ends with it
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--seeds", type=int, default=100, help="how many (100)")
    parser.add_argument("--minutes", type=float, help="begin no seed after so many, whatever --seeds says")
    parser.add_argument("--replay", type=int, nargs="+", help="these seeds alone")
    parser.add_argument(
        "--programs", type=int, default=25, help="each so-manyth seed as programs (25; 0: none)"
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=90,
        help="seconds that a seed may take (90), four times as many as programs",
    )
    parser.add_argument("--player", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.player:
        play(options.player)
        return
    sys.exit(0 if told(options) else 1)


def told(options: argparse.Namespace) -> bool:
    started, ended, wrong = time.monotonic(), Counter[str](), list[int]()
    last = options.first + (options.seeds if not options.minutes else sys.maxsize - options.first)
    seeds: Iterator[int] = iter(options.replay or range(options.first, last))
    count = 0
    for played in each(seeds, started, options):
        count += 1
        ended.update(played["ended"])
        if played["wrong"]:
            wrong.append(played["seed"])
        if played["wrong"] or options.replay:
            click.echo(f"seed {played['seed']}: {', '.join(played['ended'])}, {played['seconds']:.1f} s")
            for line in played["lines"]:
                click.echo(f"  $ {line}")
            for each_ in played["wrong"]:
                click.echo(f"    {each_}")
            sys.stdout.flush()
    lines = ", ".join(f"{number} {how}" for how, number in sorted(ended.items()))
    click.echo(
        f"{count - len(wrong)} of {count} seeds as they have to be; lines: {lines}; "
        f"{time.monotonic() - started:.0f} s"
    )
    if wrong:
        click.echo(f"FAILED: {' '.join(map(str, wrong))}")
    return not wrong


def each(seeds: Iterator[int], started: float, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What becomes of each seed, played by a process that is replaced when one has hung."""
    with tempfile.TemporaryDirectory(prefix="crossing-") as folder:
        player: Player | None = None
        try:
            for seed in seeds:
                if options.minutes and time.monotonic() - started > 60 * options.minutes:
                    return
                player = player if player and player.lives else Player(Path(folder))
                as_program = options.programs > 0 and seed % options.programs == options.programs - 1
                # Java starts and ends with each line of a program
                yield player.play(seed, as_program, (4 if as_program else 1) * options.deadline)
        finally:
            if player:
                player.close()


class Player:
    """A process with a Spark of its own, that plays seeds one after the other."""

    def __init__(self, folder: Path) -> None:
        self.log = log = Path(tempfile.mkdtemp(dir=folder)) / "log"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.crossing", "--player", str(log)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
            start_new_session=True,
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._answers.get(timeout=300)  # ready

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def play(self, seed: int, as_program: bool, deadline: float) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps([seed, as_program]) + "\n")
        self._process.stdin.flush()
        try:
            answer = self._answers.get(timeout=deadline)
        except queue.Empty:
            answer = ""
        if answer:
            found: dict[str, Any] = json.loads(answer)
            return found
        how = f"it hangs: no end in {deadline:g} s" if self.lives else "the process that played it has ended"
        self.kill()
        from tests.apps.crossing.draw import drawn

        lines = list(map(str, drawn(seed).lines))
        where = self.log.read_text(errors="replace").splitlines()[-60:]
        wrong = [how, *where]
        return {"seed": seed, "lines": lines, "ended": ["hung"], "wrong": wrong, "seconds": deadline}

    def close(self) -> None:
        """There are no more seeds for it."""
        assert self._process.stdin
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.stdin.close()
            self._process.wait(_END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Its workers and Java too; one that still runs says first, on stderr, where it stands."""
        if self.lives:
            self._process.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def play(log: Path) -> None:
    """Seeds from stdin, what became of them to stdout; ``log`` is the file that stderr is."""
    import faulthandler
    from dataclasses import asdict

    from tests.apps.crossing import materials
    from tests.apps.crossing.draw import drawn
    from tests.apps.crossing.play import Stage
    from tests.running_spark import running_spark

    faulthandler.register(signal.SIGUSR1, all_threads=True)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print goes elsewhere
    place = Path(tempfile.mkdtemp())
    with running_spark(f"local[{SLOTS}]", {}) as spark:
        stage = Stage(spark, SLOTS, materials.write(place / "materials"), log)
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            seed, as_program = json.loads(line)
            folder = place / f"{seed}-{time.monotonic_ns()}"
            played = asdict(stage.play(drawn(seed), folder, as_program=as_program))
            print(json.dumps(played), file=answers, flush=True)


if __name__ == "__main__":
    main()
