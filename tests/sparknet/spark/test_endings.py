"""How a run ends when its Spark or its driver does: in a process of its own, for it ends with it.

What is left of a driver that was killed is looked at where drivers are killed, in test_chaos.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]

# Two runs in one process, the second on a Spark of its own: one whose Spark is stopped, one interrupted.
DRIVER = """
import os, threading
from sparknet.spark import Deadlines, SparkWorkers, from_examples, session
from sparknet.training import Settings, train
from tests.sparknet.small import pictures, small_recipe

def run(end):
    spark = session("endings", "local[2]", {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1",
                                            "spark.log.level": "OFF"})
    data = from_examples(spark, pictures(), 2)
    with SparkWorkers(spark, small_recipe(), data, deadlines=Deadlines(join=60, stop=5)) as workers:
        for done in train(workers, Settings(rounds=10**6, tau=5)):
            if done.number == 3:
                print("workers", *[who.pid for who in workers.members], flush=True)
                end(spark)

try:
    run(lambda spark: spark.stop())
except Exception as error:
    print("raised", type(error).__name__, error, flush=True)
left = [thread.name for thread in threading.enumerate() if thread.name.startswith("sparknet")]
print("left", left, flush=True)
run(lambda spark: os.kill(os.getpid(), 2))
"""


def pids(line: str) -> list[int]:
    name, *numbers = line.split()
    assert name == "workers"
    return [int(number) for number in numbers]


def wait_until_gone(workers: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"processes {left} are still there"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def ended() -> subprocess.CompletedProcess[str]:
    """The process with both runs, once it is over."""
    return subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=ROOT,
        env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=280,
        check=False,
    )


def test_a_stopped_context_ends_training_with_one_message_and_leaves_nothing(
    ended: subprocess.CompletedProcess[str],
) -> None:
    workers, raised, left, _ = ended.stdout.splitlines()
    assert raised.startswith("raised TrainingError the Spark job that carries the workers ended: ")
    assert left == "left []"
    wait_until_gone(pids(workers), 60)


def test_an_interrupt_ends_training_and_leaves_nothing(ended: subprocess.CompletedProcess[str]) -> None:
    *_, workers = ended.stdout.splitlines()
    assert ended.returncode != 0
    wait_until_gone(pids(workers), 60)
