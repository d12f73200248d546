"""A training whose cluster loses a machine with notice and then comes to its end, on hosts of both kinds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.local import LocalCloud, open_cloud
from tests.infra.test_end_to_end import User

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]

NOTICE_SECONDS = 45.0
TRAINING = ("--data", "synthetic", "--rounds", "5000", "--tau", "2", "--test-every", "0")


@pytest.fixture(params=["processes", pytest.param("namespaces", marks=pytest.mark.rig)])
def user(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[User]:
    somebody = User(tmp_path)
    somebody.env["SPARKNET_EC2_HOSTS"] = request.param
    yield somebody
    somebody.types("local", "clean")


def until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true in {seconds:g} s"
        time.sleep(1)


def test_a_machine_that_is_taken_back_and_the_end_of_the_cluster_cost_a_training_nothing(user: User) -> None:
    user.types("launch", "-s", "2", "life", "--max-hours", "2", "--idle-minutes", "60")
    cloud = open_cloud(user.folder / "home", start=False)
    assert cloud is not None
    where = ("--name", "life")
    saves = ("--checkpoint", "/tmp/life-checkpoints", "--checkpoint-every", "100000")
    job = user.types("submit", "CifarApp", *where, "--detach", "--", *TRAINING, *saves).split()[-1]

    def log() -> str:
        return user.types("logs", *where, "-n", "2000", job)

    until(lambda: "round 3/" in log(), "training", 480)  # drawing the data takes a core a while
    lost = lose_one_with_notice(user, cloud)
    assert lost in user.types("status", "life")
    until(lambda: "has left: its machine is taken back" in log(), "the worker's leave", 90)
    before = log().count("round ")
    until(lambda: log().count("round ") > before + 3, "training on one worker", 180)
    assert "lost worker" not in log()

    user.types("extend", "life", "--hours", "1")
    [end] = [line for line in user.types("status", "life").splitlines() if "ends itself: at" in line]
    assert "after 60 minutes without a job" in end
    cloud.control("POST", "clock", {"advance_seconds": 3 * 3600 - seconds_since_launch(user, cloud) - 100})
    until(lambda: "the cluster ends at" in log(), "the driver to be told", 60)
    assert "it is saved in /tmp/life-checkpoints, and --resume goes on from there" in log()
    cloud.control("POST", "clock", {"advance_seconds": 120})
    until(lambda: living(user) == [], "every node to end itself", 120)


def lose_one_with_notice(user: User, cloud: LocalCloud) -> str:
    state = json.loads(user.types("status", "life", "--json"))["status"]
    lost = state["cluster"]["workers"][0]
    cloud.control("POST", f"interrupt/{lost['id']}", {"notice_seconds": NOTICE_SECONDS})
    return str(lost["id"])


def seconds_since_launch(user: User, cloud: LocalCloud) -> float:
    """By the clock of the cloud, from the tag of the group on, as its end is."""
    from datetime import datetime

    nodes = json.loads(user.types("status", "life", "--json"))["status"]["cluster"]
    created = datetime.fromisoformat(nodes["master"]["tags"]["sparknet:created"])
    return (datetime.fromisoformat(cloud.control("POST", "clock", {})["now"]) - created).total_seconds()


def living(user: User) -> list[str]:
    """Ids of the nodes that there are."""
    process = user.start("status", "life", "--json")
    told, _ = process.communicate(timeout=100)
    if "There is no cluster life" in told:
        return []
    cluster = json.loads(told)["status"]["cluster"]
    return [node["id"] for node in [cluster["master"], *cluster["workers"]] if node]
