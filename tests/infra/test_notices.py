"""Notices as EC2 tells of them: by the spot requests, and by the tags that nodes write."""

from __future__ import annotations

from dataclasses import replace

from infra import cluster
from infra.cluster import Cloud
from infra.ec2 import nodes, notices, tags
from infra.events import ignore
from infra.local import LocalCloud
from infra.spec import ClusterSpec


def test_a_node_that_is_being_taken_back_is_known_by_its_spot_request(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    made = cluster.launch(simulated, spec, ignore)
    assert notices.of_nodes(simulated.region, made.nodes) == {}
    lost = made.workers[1]
    simulation.control("POST", f"interrupt/{lost.id}", {"notice_seconds": 600})
    found = notices.of_nodes(simulated.region, nodes.describe(simulated.region, spec.name))
    assert list(found) == [lost.id]
    assert str(found[lost.id]) == f"{lost.name} ({lost.id}) is being taken back by EC2"
    cluster.destroy(simulated, spec.name, ignore)


def test_what_a_node_tags_itself_with_says_more(simulated: Cloud, spec: ClusterSpec) -> None:
    made = cluster.launch(simulated, replace(spec, workers=2), ignore)
    first, second = (one.id for one in made.workers)
    said = {first: "rebalance 2026-11-30T10:00:00Z", second: "terminate 2026-11-30T10:02:00Z"}
    for one, value in said.items():
        simulated.region.change("create_tags", Resources=[one], Tags=[{"Key": tags.NOTICE, "Value": value}])
    found = notices.of_nodes(simulated.region, nodes.describe(simulated.region, spec.name))
    told = [str(found[one]).partition(") ")[2] for one in said]
    assert told == [
        "may be taken back soon, says EC2 since 2026-11-30T10:00:00Z",
        "is being taken back by EC2 at 2026-11-30T10:02:00Z",
    ]
    cluster.destroy(simulated, spec.name, ignore)
