"""Workers are taken back under a training, and the healer on its master brings it back to strength."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from infra.local.hosts.namespaces import missing
from tests.infra.living_cluster import ALL, LivingCluster

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]
HEAL_SECONDS = 240.0


@pytest.fixture(params=["processes", pytest.param("namespaces", marks=pytest.mark.rig)])
def life(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LivingCluster]:
    if request.param == "namespaces" and (lacking := missing()):
        pytest.skip(f"no namespace hosts here: {'; '.join(lacking)}")
    made = LivingCluster(tmp_path / "home", request.param)
    yield made
    made.end()


def until_healed(life: LivingCluster, lost: dict[str, str]) -> None:
    """All four are there, others in the place of the ``lost`` (name -> id), and train."""

    def is_whole() -> bool:
        there = {name: node["id"] for name, node in life.nodes.items() if node["state"] == "running"}
        return there.keys() == ALL and all(there[name] != old for name, old in lost.items())

    life.until(is_whole, f"others in the place of {', '.join(lost)}", HEAL_SECONDS)
    life.until_members(4, HEAL_SECONDS)


def test_a_training_gets_back_every_worker_that_is_taken_from_it(life: LivingCluster) -> None:
    life.run("launch", "-s", "4", "--heal", life.name)
    life.start_job(shards=4)
    life.until_members(4)
    for names, notice in ((("worker-2",), 20.0), (("worker-3",), 0.0), (("worker-1", "worker-4"), 0.0)):
        lost = {name: life.nodes[name]["id"] for name in names}
        life.reclaim(*names, notice_seconds=notice)
        until_healed(life, lost)
    everybody = {name: node["id"] for name, node in life.nodes.items() if name != "master"}
    life.reclaim(*everybody)
    life.kill_healer()  # its unit starts it again
    until_healed(life, everybody)
    rounds = life.rounds
    assert [one["round"] for one in rounds] == list(range(1, len(rounds) + 1))
    life.run("cancel", life.job, "--name", life.name)


def test_a_healer_comes_back_with_its_master(life: LivingCluster) -> None:
    life.run("launch", "-s", "1", "--heal", life.name)
    nodes = life.nodes
    with closing(life.client()) as ec2:
        ec2.reboot_instances(InstanceIds=[nodes["master"]["id"]])
    life.reclaim("worker-1")

    def is_healed() -> bool:
        there = life.nodes
        return there.get("worker-1", nodes["worker-1"])["id"] != nodes["worker-1"]["id"]

    life.until(is_healed, "another worker-1", HEAL_SECONDS)
    life.until(lambda: "ALIVE, 1 worker" in life.run("status", life.name), "Spark to know it", HEAL_SECONDS)
