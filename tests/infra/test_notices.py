"""Notices as EC2 tells of them, by the spot requests."""

from __future__ import annotations

from datetime import datetime, timedelta

from infra import cluster
from infra.cluster import Cloud
from infra.ec2 import nodes, notices
from infra.events import ignore
from infra.local import LocalCloud
from infra.spec import ClusterSpec


def test_a_node_that_is_being_taken_back_is_known_by_its_spot_request(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    made = cluster.launch(simulated, spec, ignore)
    assert notices.of_nodes(simulated.region, made.nodes) == {}
    lost = made.workers[1]
    simulation.control("POST", "clock", {"advance_seconds": 86400})  # notices are dated by the cloud's clock
    simulation.control("POST", f"interrupt/{lost.id}", {"notice_seconds": 600})
    found = notices.of_nodes(simulated.region, nodes.describe(simulated.region, spec.name))
    assert list(found) == [lost.id]
    assert str(found[lost.id]).startswith(f"{lost.name} ({lost.id}) is being taken back by EC2 since 20")
    said = datetime.fromisoformat(found[lost.id].time)
    assert abs(said - simulated.region.now()) < timedelta(minutes=1)
    cluster.destroy(simulated, spec.name, ignore)
