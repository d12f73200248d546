"""The whole way on the embedded cloud, with process hosts and a real Spark: up, work, down, nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]

COMMAND = [sys.executable, "-c", "from infra.cli import main; main()"]
PROGRAM = """\
import json, os, sys, time
from pyspark import SparkConf, SparkContext

sc = SparkContext(conf=SparkConf())

def where(_):
    return os.environ["SPARK_EXECUTOR_DIRS"]

folders = sorted(set(sc.parallelize(range(64), 16).map(where).collect()))
count = sc.parallelize(range(100000), 4).map(lambda x: (x % 500, x)).reduceByKey(lambda a, b: a + b).count()
facts = {"folders": folders, "count": count, "secret": sc.getConf().get("spark.authenticate")}
with open(os.path.join(os.environ["SPARKNET_OUTPUT"], "facts.json"), "w") as file:
    json.dump(facts, file)
print("round 1/1  done", flush=True)
sys.exit(int(sys.argv[1]))
"""


class User:
    """Types commands; everything of theirs is below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "SPARKNET_EC2_HOME": str(folder / "home")}
        self.env.pop("SPARKNET_EC2_HOSTS", None)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *words],
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def types(self, *words: str, status: int = 0) -> str:
        process = self.start(*words)
        told, _ = process.communicate(timeout=400)
        assert process.returncode == status, told
        return told

    def processes(self) -> list[str]:
        """What runs that came from this user's commands."""
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("SPARKNET_EC2_HOME") == self.env["SPARKNET_EC2_HOME"]
                if mine or str(self.folder) in " ".join(process.cmdline()):
                    found.append(" ".join(process.cmdline())[:200])
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    somebody = User(tmp_path_factory.mktemp("user"))
    yield somebody
    somebody.types("local", "clean")


def test_a_cluster_works_and_leaves_nothing_behind(user: User) -> None:
    told = user.types("launch", "-s", "2", "e2e")
    assert "e2e is ready: a master and 2 workers" in told

    state = json.loads(user.types("status", "e2e", "--json"))["status"]
    assert state["health"]["status"] == "ALIVE"
    nodes = [state["cluster"]["master"], *state["cluster"]["workers"]]
    assert len({node["private_ip"] for node in nodes}) == 3
    assert all(node["private_ip"].startswith("127.") for node in nodes)
    assert sorted(state["health"]["addresses"]) == sorted(node["private_ip"] for node in nodes[1:])

    program = user.folder / "program.py"
    program.write_text(PROGRAM)
    told = user.types("submit", "program.py", "--name", "e2e", "--output", "results", "--", "5", status=5)
    assert "round 1/1  done" in told
    facts = json.loads((user.folder / "results/facts.json").read_text())
    assert facts["count"] == 500
    assert facts["secret"] == "true"
    # the executors of both workers spill to their own instance store and to their own EBS volume
    assert len(facts["folders"]) == 2
    for folders, node in zip(facts["folders"], facts["folders"], strict=True):
        assert "/instance-store/" in folders
        assert "/volumes/vol-" in node

    roots = user.folder / "home/local/hosts"
    for node in nodes:
        conf = roots / node["id"] / "opt/sparknet/conf"
        assert (conf / "secret").stat().st_mode & 0o777 == 0o600
        assert (conf / "spark-defaults.conf").stat().st_mode & 0o777 == 0o600
    assert "failed" in user.types("jobs", "--name", "e2e")

    before = user.processes()
    assert "e2e is ready" in user.types("launch", "-s", "2", "e2e")
    assert len(user.processes()) == len(before)

    told = user.types("destroy", "e2e", "--yes")
    assert "0 resources left." in told
    assert user.processes() == []
    assert not (user.folder / "home").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_launch_leaves_nothing_behind(user: User, number: signal.Signals) -> None:
    process = user.start("launch", "-s", "1", "stopped")
    hosts = user.folder / "home/local/hosts"
    end = time.monotonic() + 120
    while not (hosts.exists() and len(list(hosts.iterdir())) == 2):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(number)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert f"stopped by {number.name}" in told
    assert "0 resources left." in told
    assert user.processes() == []
    assert not (user.folder / "home").exists()
