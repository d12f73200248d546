"""What EC2 refuses while a cluster is taken down: machines end all the same, and what stays is named."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from infra import cluster
from infra.cluster import Cloud
from infra.ec2 import cleanup, keys, nodes
from infra.ec2.region import Region
from infra.errors import CapacityError, InfraError, Interrupted, Leftovers
from infra.events import Event, NodeProgress, Note, PhaseStarted, ignore
from infra.interrupts import interrupts_raise
from infra.local import LocalCloud
from infra.spec import ClusterSpec
from tests.infra.conftest import Run
from tests.infra.test_destroy import group_of
from tests.infra.test_never_an_orphan import at_call, fault

AT_ONCE_SECONDS = 30.0  # of a machine under load; the wait for what never comes is 600 s
LISTINGS = (
    "DescribeInstances", "DescribeSpotInstanceRequests", "DescribeVolumes", "DescribeSecurityGroups",
    "DescribeLaunchTemplates", "DescribeKeyPairs", "DescribeNetworkInterfaces", "DescribeAddresses",
    "DescribePlacementGroups", "DescribeSnapshots",
)  # fmt: skip


def alive(region: Region, name: str) -> list[str]:
    return [node.id for node in nodes.alive(nodes.describe(region, name))]


def protect(region: Region, identity: str, *, on: bool = True) -> None:
    region.change("modify_instance_attribute", InstanceId=identity, DisableApiTermination={"Value": on})


def destroy_at_once(cloud: Cloud, name: str) -> str:
    """What a destroy says that cannot come to its end."""
    began = time.monotonic()
    with pytest.raises(InfraError) as told:
        cluster.destroy(cloud, name, ignore)
    assert time.monotonic() - began < AT_ONCE_SECONDS
    return str(told.value)


@pytest.mark.parametrize("which", [0, -1], ids=["master", "worker"])
def test_a_protected_node_is_named_and_all_others_end(
    simulated: Cloud, spec: ClusterSpec, which: int
) -> None:
    made = cluster.launch(simulated, replace(spec, workers=2), ignore)
    kept = made.nodes[which].id
    protect(simulated.region, kept)
    said = destroy_at_once(simulated, spec.name)
    assert alive(simulated.region, spec.name) == [kept]
    assert f"instance {kept}" in said
    assert f"modify-instance-attribute --no-disable-api-termination --instance-id {kept}" in said
    assert "it costs $" in said
    assert keys.key_file(simulated.home, "us-east-1", spec.name).exists()  # the node can still be looked at
    protect(simulated.region, kept, on=False)
    cluster.destroy(simulated, spec.name, ignore)
    assert cleanup.remaining(simulated.region, spec.name) == []


def test_the_undo_of_a_launch_ends_all_but_a_protected_node(simulated: Cloud, spec: ClusterSpec) -> None:
    kept: list[str] = []

    def happen(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase == "prepare":
            kept.extend(alive(simulated.region, spec.name)[-1:])
            protect(simulated.region, kept[0])
        if isinstance(event, NodeProgress):
            raise CapacityError("something went wrong")

    with pytest.raises(Leftovers, match=r"(?s)something went wrong.*protects it against termination"):
        cluster.launch(simulated, spec, happen)
    assert alive(simulated.region, spec.name) == kept
    protect(simulated.region, kept[0], on=False)
    cluster.destroy(simulated, spec.name, ignore)


def test_a_protected_worker_that_is_to_go_is_named_and_the_others_go(
    simulated: Cloud, spec: ClusterSpec
) -> None:
    made = cluster.launch(simulated, spec, ignore)
    kept = made.workers[-1].id
    protect(simulated.region, kept)
    with pytest.raises(Leftovers, match=rf"protects {kept} of .*against termination"):
        cluster.launch(simulated, replace(spec, workers=1), ignore)
    assert sorted(alive(simulated.region, spec.name)) == sorted([*(n.id for n in made.nodes[:2]), kept])
    protect(simulated.region, kept, on=False)
    cluster.destroy(simulated, spec.name, ignore)


@pytest.mark.parametrize("action", LISTINGS)
def test_machines_end_whatever_may_not_be_listed(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec, action: str
) -> None:
    made = cluster.launch(simulated, replace(spec, workers=1), ignore)
    fault(simulation, action=action, code="AuthFailure", times=9999)
    said = destroy_at_once(simulated, spec.name)
    simulation.control("DELETE", "faults")
    ids = [node.id for node in made.nodes]
    nodes.wait_gone(simulated.region, None, lambda node: node.id in ids, deadline_seconds=20)
    assert "AuthFailure" in said
    cluster.destroy(simulated, spec.name, ignore)
    assert cleanup.remaining(simulated.region, spec.name) == []


def test_a_listing_that_is_refused_once_is_made_again(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    cluster.launch(simulated, replace(spec, workers=1), ignore)
    fault(simulation, action="DescribeVolumes", code="AuthFailure")
    cluster.destroy(simulated, spec.name, ignore)
    assert cleanup.remaining(simulated.region, spec.name) == []


def test_the_verb_ends_machines_though_nothing_else_may_be_listed(
    run: Run, simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    cluster.launch(simulated, replace(spec, workers=1), ignore)
    fault(simulation, action="DescribeVolumes", code="AuthFailure", times=9999)
    status, _, err = run("destroy", "--yes", "--name", spec.name)
    simulation.control("DELETE", "faults")
    assert (status, alive(simulated.region, spec.name)) == (3, [])
    assert "volumes cannot be listed" in err
    assert run("destroy", "--yes", "--name", spec.name)[0] == 0


def interface(region: Region, group: str) -> tuple[str, Callable[[], object]]:
    subnet = region.read("describe_subnets")["Subnets"][0]["SubnetId"]
    made = region.change("create_network_interface", SubnetId=subnet, Groups=[group])
    assert made is not None
    name = made["NetworkInterface"]["NetworkInterfaceId"]
    return name, lambda: region.change("delete_network_interface", NetworkInterfaceId=name)


def rule(region: Region, group: str) -> tuple[str, Callable[[], object]]:
    vpc = region.read("describe_security_groups", GroupIds=[group])["SecurityGroups"][0]["VpcId"]
    made = region.change("create_security_group", GroupName=f"other-{group}", Description="mine", VpcId=vpc)
    assert made is not None
    permission: dict[str, Any] = {
        "IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "UserIdGroupPairs": [{"GroupId": group}],
    }  # fmt: skip
    region.change("authorize_security_group_ingress", GroupId=made["GroupId"], IpPermissions=[permission])
    return made["GroupId"], lambda: region.change("delete_security_group", GroupId=made["GroupId"])


@pytest.mark.parametrize("hold", [interface, rule])
def test_who_holds_on_to_the_group_is_named_at_once(
    simulated: Cloud, spec: ClusterSpec, hold: Callable[..., tuple[str, Callable[[], object]]]
) -> None:
    cluster.launch(simulated, replace(spec, workers=1), ignore)
    group = group_of(simulated.region, spec.name)
    holder, release = hold(simulated.region, group)
    said = destroy_at_once(simulated, spec.name)
    assert f"security group {group}" in said
    assert holder in said
    assert [one.id for one in cleanup.remaining(simulated.region, spec.name)] == [group]
    release()
    cluster.destroy(simulated, spec.name, ignore)


def test_who_has_a_volume_of_the_cluster_is_named_at_once(simulated: Cloud, spec: ClusterSpec) -> None:
    region = simulated.region
    made = cluster.launch(simulated, replace(spec, workers=1), ignore)
    foreign = region.change(
        "run_instances", MinCount=1, MaxCount=1, InstanceType="m6i.large", ImageId=made.nodes[0].image
    )
    volume = region.change(
        "create_volume", AvailabilityZone=(foreign or {})["Instances"][0]["Placement"]["AvailabilityZone"],
        Size=1,
        TagSpecifications=[
            {"ResourceType": "volume", "Tags": [{"Key": "sparknet:cluster", "Value": spec.name}]}
        ],
    )  # fmt: skip
    assert foreign is not None
    assert volume is not None
    owner = foreign["Instances"][0]["InstanceId"]
    nodes_run = {"Filters": [{"Name": "instance-state-name", "Values": ["running"]}]}
    while owner not in str(region.read("describe_instances", **nodes_run)):
        time.sleep(0.05)
    region.change("attach_volume", VolumeId=volume["VolumeId"], InstanceId=owner, Device="/dev/sdx")
    said = destroy_at_once(simulated, spec.name)
    assert f"volume {volume['VolumeId']}" in said
    assert f"instance {owner} uses it" in said
    assert f"detach-volume --volume-id {volume['VolumeId']}" in said
    region.change("terminate_instances", InstanceIds=[owner])
    cluster.destroy(simulated, spec.name, ignore)


def test_credentials_that_expire_during_the_undo_leave_no_private_key_here(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    file = keys.key_file(simulated.home, "us-east-1", spec.name)
    was_there: list[bool] = []

    def happen(event: Event) -> None:
        if isinstance(event, NodeProgress):
            raise CapacityError("something went wrong")
        if isinstance(event, Note) and "did not succeed" in event.text:
            was_there.append(file.exists())
            fault(simulation, action="*", code="ExpiredToken", message="has expired", times=9999)

    with pytest.raises(Leftovers, match=r"(?s)something went wrong.*ExpiredToken.*destroy --name"):
        cluster.launch(simulated, spec, happen)
    simulation.control("DELETE", "faults")
    assert was_there == [True]
    assert not file.exists()
    cluster.destroy(simulated, spec.name, ignore)


def test_a_destroy_that_is_interrupted_names_what_is_left(simulated: Cloud, spec: ClusterSpec) -> None:
    made = cluster.launch(simulated, replace(spec, workers=1), ignore)
    with (
        interrupts_raise(),
        at_call(simulated.region, 13, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        pytest.raises(Interrupted) as told,
    ):
        cluster.destroy(simulated, spec.name, ignore)
    left = cleanup.remaining(simulated.region, spec.name)
    assert left
    assert all(one.id in str(told.value) for one in left if one.kind != cleanup.INSTANCE)
    assert f"instance {made.nodes[0].id}" in str(told.value)
    cluster.destroy(simulated, spec.name, ignore)
