"""A cluster grows, shrinks and is repaired under a training, which goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.hosts.namespaces import missing
from tests.infra.living_cluster import LivingCluster

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(params=["processes", pytest.param("namespaces", marks=pytest.mark.rig)])
def life(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LivingCluster]:
    if request.param == "namespaces" and (lacking := missing()):
        pytest.skip(f"no namespace hosts here: {'; '.join(lacking)}")
    made = LivingCluster(tmp_path / "home", request.param)
    yield made
    made.end()


def test_no_round_is_lost_and_no_process_of_spark_starts_again(life: LivingCluster) -> None:
    life.run("launch", "-s", "2", life.name)
    before = life.daemons
    assert len(before) == 3
    life.start_job(shards=4)

    life.run("add-slaves", life.name, "--num-slaves", "2")
    grown = life.daemons
    assert len(grown) == 5
    assert before.items() < grown.items()
    life.until_members(4)

    life.run("repair", life.name)
    assert life.daemons == grown

    told = life.run("remove-slaves", life.name, "--num-slaves", "2", status=2)
    assert told == ""
    life.run("remove-slaves", life.name, "--num-slaves", "2", "--yes")
    assert sorted(life.nodes) == ["master", "worker-1", "worker-2"]
    last = life.rounds[-1]["round"]
    life.until(lambda: life.rounds[-1]["round"] > last + 3, "the rounds after the shrinking", 120)
    assert life.daemons == before

    rounds = life.rounds
    assert [one["round"] for one in rounds] == list(range(1, len(rounds) + 1))
    assert [one["lost"] for one in rounds if one["lost"]] == []
    assert {one["round"]: one["left"] for one in rounds if one["left"]}, "nobody left in order"
    life.run("cancel", life.job, "--name", life.name)
