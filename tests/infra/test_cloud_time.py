"""What depends on time goes by the clock of the cloud, whatever this machine's says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from infra import bill, cluster, costs, orphans
from infra.cluster import Cloud
from infra.ec2 import launch_lock
from infra.ec2.launch_lock import LocalTokens
from infra.events import ignore
from infra.local import LocalCloud
from infra.spec import ClusterSpec


def spent(cloud: Cloud, name: str) -> costs.Cost:
    found = bill.look(cloud, name)
    assert found is not None
    return found.cost


def test_what_a_cluster_has_cost_grows_with_the_cloud_s_time(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    cluster.launch(simulated, replace(spec, workers=1), ignore)
    before = spent(simulated, spec.name)
    assert before.so_far < 0.1 * before.per_hour
    simulation.control("POST", "clock", {"advance_seconds": 10 * 3600})
    after = spent(simulated, spec.name)
    assert after.so_far == pytest.approx(10 * after.per_hour, rel=0.02)
    cluster.destroy(simulated, spec.name, ignore)


def test_a_cluster_ends_so_many_hours_after_its_beginning_by_that_clock(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    simulation.control("POST", "clock", {"advance_seconds": 40 * 3600})
    made = cluster.launch(simulated, replace(spec, workers=1, max_hours=3), ignore)
    launched = datetime.fromisoformat(made.nodes[0].launched)
    expires = datetime.fromisoformat(made.nodes[0].expires)
    assert abs(expires - launched - timedelta(hours=3)) < timedelta(minutes=2)
    assert abs(simulated.region.now() - datetime.now(UTC)) > timedelta(hours=39)
    assert [one.cluster for one in orphans.find(simulated.region) if one.cluster == spec.name] == []
    simulation.control("POST", "clock", {"advance_seconds": 3 * 3600 + 120})
    simulated.region.read("describe_regions")
    [late] = [one for one in orphans.find(simulated.region) if one.cluster == spec.name]
    assert late.reason == "its --max-hours are over"
    cluster.destroy(simulated, spec.name, ignore)


def test_a_launch_lock_is_valid_by_that_clock(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    simulation.control("POST", "clock", {"advance_seconds": 40 * 3600})
    one, two = (LocalTokens(simulated.home / name) for name in ("one", "two"))
    launch_lock.acquire(simulated.region, spec.name, one)
    lock = launch_lock.find(simulated.region, spec.name)
    assert lock is not None
    assert lock.is_valid(simulated.region.now())
    simulation.control("POST", "clock", {"advance_seconds": 3700})
    taken = launch_lock.acquire(simulated.region, spec.name, two)
    assert taken != lock.id
    cluster.destroy(simulated, spec.name, ignore)
