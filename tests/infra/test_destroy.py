"""Destroy works from every state a cluster can be in, and from those somebody else has brought it into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from infra import cluster
from infra.cluster import Cloud, Cluster
from infra.ec2 import cleanup, nodes, removal
from infra.ec2.region import Region
from infra.errors import ClusterNotFound, Leftovers
from infra.events import Event, Removed, ignore
from infra.local import LocalCloud
from infra.spec import ClusterSpec

Happen = Callable[[Region, Cluster], None]


def group_of(region: Region, name: str) -> str:
    return next(one.id for one in cleanup.remaining(region, name) if one.kind == cleanup.GROUP)


def end(region: Region, *ids: str) -> None:
    nodes.terminate(region, ids)
    nodes.wait_gone(region, None, lambda node: node.id in ids, deadline_seconds=20)


def stop_the_master(region: Region, made: Cluster) -> None:
    assert made.master is not None
    region.change("stop_instances", InstanceIds=[made.master.id])


def end_the_master(region: Region, made: Cluster) -> None:
    assert made.master is not None
    end(region, made.master.id)


def end_every_node(region: Region, made: Cluster) -> None:
    end(region, *(node.id for node in made.nodes))


def delete_the_group(region: Region, made: Cluster) -> None:
    end_every_node(region, made)
    region.change("delete_security_group", GroupId=group_of(region, made.name))


def delete_template_and_key(region: Region, made: Cluster) -> None:
    region.change("delete_launch_template", LaunchTemplateName=f"sparknet-{made.name}")
    region.change("delete_key_pair", KeyName=f"sparknet-{made.name}")


def leave_a_volume_behind(region: Region, made: Cluster) -> None:
    region.change(
        "create_volume",
        AvailabilityZone="us-east-1a",
        Size=10,
        TagSpecifications=[
            {"ResourceType": "volume", "Tags": [{"Key": "sparknet:cluster", "Value": made.name}]}
        ],
    )


def leave_one_of_everything_behind(region: Region, made: Cluster) -> None:
    """What no launch makes, or what outlives its machine."""

    def tagged(kind: str) -> list[dict[str, object]]:
        return [{"ResourceType": kind, "Tags": [{"Key": "sparknet:cluster", "Value": made.name}]}]

    subnet = region.read("describe_subnets")["Subnets"][0]["SubnetId"]
    group = group_of(region, made.name)
    region.change("allocate_address", Domain="vpc", TagSpecifications=tagged("elastic-ip"))
    region.change("create_placement_group", GroupName=made.name, TagSpecifications=tagged("placement-group"))
    region.change(
        "create_network_interface",
        SubnetId=subnet,
        Groups=[group],
        TagSpecifications=tagged("network-interface"),
    )
    volume = region.change("create_volume", AvailabilityZone="us-east-1a", Size=1)
    assert volume is not None
    region.change("create_snapshot", VolumeId=volume["VolumeId"], TagSpecifications=tagged("snapshot"))
    region.change("delete_volume", VolumeId=volume["VolumeId"])
    kinds = {one.kind for one in cleanup.remaining(region, made.name)}
    assert kinds >= {cleanup.ADDRESS, cleanup.PLACEMENT, cleanup.INTERFACE, cleanup.SNAPSHOT}


@pytest.mark.parametrize(
    "happen",
    [
        leave_one_of_everything_behind,
        stop_the_master,
        end_the_master,
        end_every_node,
        delete_the_group,
        delete_template_and_key,
        leave_a_volume_behind,
    ],
)
def test_destroy_removes_what_is_left_of_a_cluster(
    simulated: Cloud, spec: ClusterSpec, happen: Happen
) -> None:
    made = cluster.launch(simulated, replace(spec, workers=1), ignore)
    happen(simulated.region, made)
    told: list[Event] = []
    removed = cluster.destroy(simulated, spec.name, told.append)
    assert cleanup.remaining(simulated.region, spec.name) == []
    assert {one.id for one in removed} == {event.id for event in told if isinstance(event, Removed)}


@pytest.mark.parametrize("happen", [end_the_master, end_every_node, delete_template_and_key])
def test_launch_brings_a_damaged_cluster_back(simulated: Cloud, spec: ClusterSpec, happen: Happen) -> None:
    wanted = replace(spec, workers=1)
    happen(simulated.region, cluster.launch(simulated, wanted, ignore))
    (simulated.home / "keys/us-east-1" / f"{spec.name}.pem").unlink(missing_ok=happen is not end_the_master)
    if happen is end_the_master:  # its key is still known to EC2, and only to EC2
        with pytest.raises(Exception, match="is not on this machine"):
            cluster.launch(simulated, wanted, ignore)
    else:
        again = cluster.launch(simulated, wanted, ignore)
        assert [node.role for node in again.nodes] == ["master", "worker"]
    cluster.destroy(simulated, spec.name, ignore)


def test_destroying_nothing_removes_nothing(simulated: Cloud) -> None:
    assert cluster.destroy(simulated, "nobody", ignore) == []


def test_what_cannot_be_removed_is_named(simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec) -> None:
    cluster.launch(simulated, replace(spec, workers=1), ignore)
    simulation.control(
        "POST", "faults", [{"action": "DeleteSecurityGroup", "code": "DependencyViolation", "times": 9999}]
    )
    with pytest.raises(Leftovers, match="security group sg-"):
        removal.remove_all(simulated.region, spec.name, ignore, deadline_seconds=1, settle_seconds=0.01)
    simulation.control("DELETE", "faults")
    cluster.destroy(simulated, spec.name, ignore)


def test_a_cluster_that_is_not_there_is_told_with_those_that_are(simulated: Cloud, spec: ClusterSpec) -> None:
    cluster.launch(simulated, replace(spec, workers=1), ignore)
    with pytest.raises(ClusterNotFound, match=f"There is no cluster nix .*there are: .*{spec.name}"):
        cluster.find(simulated, "nix")
    cluster.destroy(simulated, spec.name, ignore)


def test_a_cluster_in_another_region_is_found_there(simulated: Cloud, spec: ClusterSpec) -> None:
    elsewhere = replace(simulated, region=simulated.region.at("us-west-2"))
    cluster.launch(elsewhere, replace(spec, region="us-west-2", workers=1), ignore)
    places = {here.region.name: here for here in cluster.in_all_regions(simulated)}
    assert len(places) > 10
    assert cleanup.remaining(simulated.region, spec.name) == []
    cluster.destroy(places["us-west-2"], spec.name, ignore)
    assert cleanup.remaining(elsewhere.region, spec.name) == []
