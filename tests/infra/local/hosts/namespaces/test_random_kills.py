"""Commands that are ended in the midst of their work leave nothing that the next command does not know of.

SPARKNET_KILLS=10 pytest tests/infra/local/hosts/namespaces/test_random_kills.py    so many, not just four
SPARKNET_KILLS_SEED=7                                                               at other moments
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from infra.ec2 import tags
from infra.local import open_cloud
from infra.local.hosts.namespaces import missing
from tests.infra.local.hosts.namespaces.test_cluster import COMMAND, ROOT, Cluster
from tests.infra.local.hosts.namespaces.test_leftovers import traces
from tests.infra.local.requests import until

pytestmark = [
    pytest.mark.rig,
    pytest.mark.spark,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(700),
]

TIMES = int(os.environ.get("SPARKNET_KILLS", "4"))
SEED = int(os.environ.get("SPARKNET_KILLS_SEED", "1"))
LAUNCH = ("launch", "-s", "1")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LONGEST_SECONDS = {"launch": 40.0, "submit": 15.0, "add-slaves": 30.0, "destroy": 6.0}
"""Until when a signal may come, on a machine that has little else to do."""

PROGRAM = "import time\nprint('begun', flush=True)\ntime.sleep(20)\n"


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if lacking := missing():
        pytest.skip(f"no namespace hosts here: {'; '.join(lacking)}")
    made = Cluster(tmp_path_factory.mktemp("killed"))
    yield made
    made.end()


def strike(cluster: Cluster, dice: random.Random, *words: str) -> str:
    """Send a signal to the command at some moment; what it said."""
    moment, number = dice.uniform(0, LONGEST_SECONDS[words[0]]), dice.choice(SIGNALS)
    environment = {
        **os.environ,
        "SPARKNET_EC2_HOME": str(cluster.home),
        "SPARKNET_EC2_HOSTS": "namespaces",
    }
    command = subprocess.Popen(
        [*COMMAND, *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    time.sleep(moment)
    command.send_signal(number)
    said, _ = command.communicate(timeout=200)
    assert "Traceback" not in said, said
    return f"{' '.join(words)}, {number.name} after {moment:.1f} s: exit {command.returncode}\n{said}"


def running(cluster: Cluster) -> list[dict[str, Any]]:
    return cluster.instances if open_cloud(cluster.home, start=False) else []


def workers(cluster: Cluster) -> int:
    return sum("worker" in str(instance["Tags"]) for instance in running(cluster))


def test_what_a_killed_command_leaves_is_a_clusters_or_goes(cluster: Cluster, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    program = tmp_path / "wait.py"
    program.write_text(PROGRAM)
    commands = (LAUNCH, ("submit", str(program)), ("add-slaves",), ("destroy", "--yes"))
    for words in islice(cycle(commands), TIMES):
        struck = strike(cluster, dice, *words)
        for instance in running(cluster):
            assert {"Key": tags.CLUSTER, "Value": "sparknet"} in instance["Tags"], struck
        match words[0]:
            case "launch":
                cluster.run(*LAUNCH)
                assert workers(cluster) == 1, struck
            case "submit":
                cluster.run("jobs")
            case "add-slaves":
                assert workers(cluster) in (1, 2), struck
                cluster.run("status")
            case "destroy":
                cluster.run("destroy", "--yes")
                assert running(cluster) == [], struck
    cluster.run("destroy", "--yes")
    assert running(cluster) == []
    until(lambda: not traces(cluster.home / "local").leftovers, "links, loops and mounts to be gone")
    until(lambda: not traces(cluster.home / "local").processes, "the hosts' processes to be gone")
