"""The engine under faults: seeds 0 to 199 and all plans that ever failed, against a model of every round."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# Runs at a time: they wait more than they compute.
_AT_ONCE = 8


def run_seeds(*arguments: str, seconds: float = 500) -> str:
    """In a process of its own, from which those of the runs are forked before anything has threads."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench.faults", "--at-once", str(_AT_ONCE), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said[-20_000:]
    return said


@pytest.mark.slow
def test_every_round_of_200_seeds_is_what_a_model_says_whatever_befalls_the_workers() -> None:
    said = run_seeds("--seeds", "200", "--log")
    found = re.search(r"200 of 200 runs passed .*: ([\d]+) rounds, ([\d]+) faults", said)
    assert found, said
    assert int(found[1]) > 2000
    assert int(found[2]) > 200
    # each of them has happened
    for what in ("kill", "stop", "cut", "slow", "host", "restart", "notice", "left in time"):
        assert re.search(rf"what happened: .*\b{what} \d+", said), said


@pytest.mark.slow
def test_every_plan_that_ever_failed_passes() -> None:
    assert re.search(r"([1-9]\d*) of \1 runs passed", run_seeds("--kept", "--log"))


def test_the_model_notices_a_round_that_leaves_a_worker_out(tmp_path: Path) -> None:
    """A wrong engine: the mean counts one worker twice. Such a run must not pass."""
    wrong = (
        "from sparknet.distributed.averaging.star import Star\n"
        "from tests.bench import faults\n"
        "merge = Star.merge\n"
        "def twice(self, done, reports, plan):\n"
        "    done = list(done)\n"
        "    return merge(self, done[:1] * len(done), reports, plan)\n"
        "Star.merge = twice\n"
        "faults.main()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", wrong, "--mode", "star", "--replay", "5", "6", "7", "8"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 1
    assert "the weights are off by" in ran.stdout
