"""Signals at random moments, alone and close together: no instance stays that is not of a cluster in use.

SPARKNET_SIGNALS=200 pytest -m slow tests/infra/test_random_signals.py    so many times, not just a few
SPARKNET_SIGNALS_SEED=7                                                   at other moments
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import FrameType

import pytest

from infra.cluster import Cloud
from infra.ec2 import cleanup, network, nodes
from infra.errors import Interrupted
from infra.interrupts import interrupts_held, interrupts_raise, undone_on_failure
from infra.local import LocalCloud
from tests.infra.fork_server import DESTROY, LAUNCH, Ended, ForkServer

TIMES = int(os.environ.get("SPARKNET_SIGNALS", "4"))
SEED = int(os.environ.get("SPARKNET_SIGNALS_SEED", "1"))
GROW = ("add-slaves", "--cloud", "aws", "--authorized-address", "198.51.100.7/32", "--name")
TOGETHER_SECONDS = 0.0003
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@pytest.fixture(scope="module")
def server(simulation: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    made = ForkServer(simulation, tmp_path_factory.mktemp("fork-server"))
    yield made
    made.end()


def storm(dice: random.Random) -> list[tuple[float, signal.Signals]]:
    """Signals, and how long after the one before each comes; the first one comes at once."""
    count = dice.choice((1, 2, 2, 3))
    gaps = (TOGETHER_SECONDS, TOGETHER_SECONDS, dice.uniform(0, 0.01), dice.uniform(0, 0.2))
    first = dice.choice(SIGNALS)
    return [(0.0, first), *((dice.choice(gaps), dice.choice((first, *SIGNALS))) for _ in range(count - 1))]


def hit(server: ForkServer, dice: random.Random, seconds: float, *words: str) -> Ended:
    """A command that usually takes ``seconds``, and a storm at some moment of it."""
    command = server.command(*words)
    moment, signals = dice.uniform(0, seconds * 1.05), storm(dice)
    command.go()
    time.sleep(moment)
    for gap, number in signals:
        time.sleep(gap)
        with suppress(ProcessLookupError):
            os.kill(command.pid, number)
    return command.wait()


def duration(server: ForkServer, *words: str) -> float:
    began = time.monotonic()
    assert server.run(*words).status == 0
    return time.monotonic() - began


def roles(cloud: Cloud, name: str) -> list[str]:
    return sorted(node.role for node in nodes.alive(nodes.describe(cloud.region, name)))


def is_ready(cloud: Cloud, name: str) -> bool:
    group = network.find_group(cloud.region, name)
    return group is not None and group.is_ready


def forget(server: ForkServer) -> None:
    server.cloud.control("POST", "clock", {"advance_seconds": 7200})


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_launch_ends_as_a_cluster_or_as_nothing(server: ForkServer, simulated: Cloud) -> None:
    dice = random.Random(SEED)
    seconds = duration(server, *LAUNCH, "storm")
    server.run(*DESTROY, "storm")
    for number in range(TIMES):
        ended = hit(server, dice, seconds, *LAUNCH, "storm")
        left = cleanup.remaining(simulated.region, "storm")
        place = f"seed {SEED}, launch {number}: {ended}"
        assert "Traceback" not in ended.err, place
        if left:
            assert is_ready(simulated, "storm"), place
            assert roles(simulated, "storm") == ["master", "worker", "worker"], place
            server.run(*DESTROY, "storm")
            assert cleanup.remaining(simulated.region, "storm") == [], place
        else:
            assert ended.status != 0, place
        forget(server)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_growth_ends_with_the_workers_it_adds_or_without_them(server: ForkServer, simulated: Cloud) -> None:
    dice = random.Random(SEED)
    server.run(*LAUNCH, "grown")
    seconds = duration(server, *GROW, "grown")
    server.run(*DESTROY, "grown")
    server.run(*LAUNCH, "grown")
    workers = 2
    for number in range(TIMES):
        ended = hit(server, dice, seconds, *GROW, "grown")
        found = roles(simulated, "grown")
        place = f"seed {SEED}, growth {number}: {found} {ended}"
        assert found.count("master") == 1, place
        assert found.count("worker") in (workers, workers + 1), place
        assert ended.status != 0 or found.count("worker") == workers + 1, place
        workers = found.count("worker")
        if workers > 4:
            server.run(*DESTROY, "grown")
            server.run(*LAUNCH, "grown")
            workers = 2
        forget(server)
    server.run(*DESTROY, "grown")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_destroy_can_be_finished_and_says_so(server: ForkServer, simulated: Cloud) -> None:
    dice = random.Random(SEED)
    server.run(*LAUNCH, "ruin")
    seconds = duration(server, *DESTROY, "ruin")
    for number in range(TIMES):
        server.run(*LAUNCH, "ruin")
        ended = hit(server, dice, seconds, *DESTROY, "ruin")
        place = f"seed {SEED}, destroy {number}: {ended}"
        assert "Traceback" not in ended.err, place
        assert ended.status != 0 or cleanup.remaining(simulated.region, "ruin") == [], place
        assert server.run(*DESTROY, "ruin").status == 0, place
        assert cleanup.remaining(simulated.region, "ruin") == [], place
        forget(server)


def interrupted_at(step: int, signals: Sequence[signal.Signals]) -> list[str] | None:
    """What work and its undo did, with signals at the ``step``-th line; None if there are fewer lines."""
    done: list[str] = []
    steps = 0

    def work() -> str:
        done.append("made")
        with interrupts_held():
            done.append("made more")
        raise ValueError("of its own")

    def undo(_error: BaseException) -> None:
        done.append("undone")

    def trace(frame: FrameType, _event: str, _argument: object) -> object:
        nonlocal steps
        if not frame.f_code.co_filename.endswith(("interrupts.py", "contextlib.py", Path(__file__).name)):
            return None
        steps += 1
        if steps == step:
            for number in signals:
                os.kill(os.getpid(), number)
        return trace

    with interrupts_raise(), suppress(ValueError, Interrupted):
        before = sys.gettrace()
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            undone_on_failure(work, undo, lambda _name: None)
        finally:
            sys.settrace(before)
    return done if steps >= step else None


@pytest.mark.parametrize(
    "signals", [(signal.SIGHUP,), (signal.SIGHUP, signal.SIGHUP), SIGNALS], ids=["one", "two", "three"]
)
def test_whatever_was_made_is_undone_at_whichever_line_signals_come(signals: tuple[signal.Signals]) -> None:
    seen = 0
    for step in count(1):
        done = interrupted_at(step, signals)
        if done is None:
            break
        if "made" in done:
            seen += 1
            assert done.count("undone") == 1, f"at step {step}: {done}"
    assert seen > 30
