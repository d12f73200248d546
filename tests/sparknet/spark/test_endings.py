"""How a run ends when its driver does: each in a process of its own, for it ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]

DRIVER = """
import os, threading
from sparknet.spark import Deadlines, SparkWorkers, from_examples, session
from sparknet.training import Settings, train
from tests.sparknet.small import pictures, small_recipe

spark = session("endings", "local[2]", {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1",
                                        "spark.log.level": "OFF"})
data = from_examples(spark, pictures(), 2)
try:
    with SparkWorkers(spark, small_recipe(), data, deadlines=Deadlines(join=60, stop=5)) as crew:
        for done in train(crew, Settings(rounds=10**6, tau=5)):
            if done.number == 3:
                print("workers", *[who.pid for who in crew.members], flush=True)
                ACTION
except Exception as error:
    print("raised", type(error).__name__, error, flush=True)
left = [thread.name for thread in threading.enumerate() if thread.name.startswith("sparknet")]
print("left", left, flush=True)
"""


def driver(action: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER.replace("ACTION", action)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def pids(line: str) -> list[int]:
    name, *numbers = line.split()
    assert name == "workers"
    return [int(number) for number in numbers]


def wait_until_gone(workers: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"processes {left} are still there"
        time.sleep(0.1)


def test_a_stopped_context_ends_training_with_one_message_and_leaves_nothing() -> None:
    with driver("spark.stop()") as process:
        said, _ = process.communicate(timeout=280)
    workers, raised, left = said.splitlines()
    assert raised.startswith("raised TrainingError the Spark job that carries the workers ended: ")
    assert left == "left []"
    assert process.returncode == 0
    wait_until_gone(pids(workers), 60)


def test_an_interrupt_ends_training_and_leaves_nothing() -> None:
    with driver("os.kill(os.getpid(), 2)") as process:
        said, _ = process.communicate(timeout=280)
    wait_until_gone(pids(said.splitlines()[0]), 60)
    assert process.returncode != 0


def test_the_workers_of_a_driver_that_was_killed_leave_by_themselves() -> None:
    with driver("pass") as process:
        assert process.stdout is not None
        workers = pids(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=20)
    wait_until_gone(workers, 60)
