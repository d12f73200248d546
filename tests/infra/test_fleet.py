"""Capacity is bought from whichever pool has it, all of it or none, and every pool's answer is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infra import cluster
from infra.cluster import Cloud
from infra.ec2 import cleanup, images, nodes
from infra.errors import CapacityError, CredentialsError, PriceTooLow, QuotaError, UsageError
from infra.events import Event, Note, PoolAnswered, ignore
from infra.local import LocalCloud
from infra.spec import ClusterSpec, Purchase, Spill


def only_in(simulation: LocalCloud, *pools: dict[str, Any]) -> None:
    simulation.control("POST", "capacity", [{"instance_type": "g*", "machines": 0}, *pools])


def workers(cloud: Cloud, spec: ClusterSpec) -> list[nodes.Node]:
    return [one for one in nodes.alive(nodes.describe(cloud.region, spec.name)) if one.role == nodes.WORKER]


def answers(told: list[Event]) -> list[PoolAnswered]:
    return [event for event in told if isinstance(event, PoolAnswered)]


def test_the_one_pool_that_has_machines_is_found_and_named(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    only_in(simulation, {"instance_type": "g5.2xlarge", "zone": "us-east-1d", "machines": 3})
    told: list[Event] = []
    cluster.launch(simulated, spec, told.append)
    assert {(one.instance_type, one.zone) for one in workers(simulated, spec)} == {
        ("g5.2xlarge", "us-east-1d")
    }
    launched = [one for one in answers(told) if one.launched and one.purchase == "spot"]
    assert [(one.instance_type, one.zone, one.launched) for one in launched] == [
        ("g5.2xlarge", "us-east-1d", 3)
    ]
    refused = [one for one in answers(told) if not one.launched]
    assert refused
    assert all("InsufficientInstanceCapacity" in one.answer for one in refused)
    cluster.destroy(simulated, spec.name, ignore)


def test_without_capacity_anywhere_the_launch_fails_with_the_table_and_leaves_nothing(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    only_in(simulation)
    with pytest.raises(CapacityError) as failed:
        cluster.launch(simulated, replace(spec, instance_types=("g6.xlarge", "g5.xlarge")), ignore)
    assert "g6.xlarge  us-east-1a  InsufficientInstanceCapacity" in str(failed.value)
    assert "--fallback on-demand" in str(failed.value)
    assert failed.value.exit_status == 5
    assert cleanup.remaining(simulated.region, spec.name) == []


def test_on_demand_is_bought_only_if_allowed(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    only_in(simulation, {"instance_type": "g6.xlarge", "purchase": "on-demand", "machines": 50})
    wanted = replace(spec, instance_types=("g6.xlarge",))
    with pytest.raises(CapacityError):
        cluster.launch(simulated, wanted, ignore)
    cluster.launch(simulated, replace(wanted, purchase=Purchase(fallback_on_demand=True)), ignore)
    assert {one.purchase for one in workers(simulated, spec)} == {"on-demand"}
    cluster.destroy(simulated, spec.name, ignore)


def test_pools_too_small_for_all_workers_serve_only_a_cluster_that_may_be_spread(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    only_in(
        simulation,
        {"instance_type": "g6.xlarge", "zone": "us-east-1a", "purchase": "spot", "machines": 2},
        {"instance_type": "g5.xlarge", "zone": "us-east-1b", "purchase": "spot", "machines": 2},
    )
    with pytest.raises(CapacityError):
        cluster.launch(simulated, spec, ignore)
    cluster.launch(simulated, replace(spec, purchase=Purchase(spread=True)), ignore)
    assert len(workers(simulated, spec)) == 3
    cluster.destroy(simulated, spec.name, ignore)


def test_workers_are_spot_and_the_master_is_not(simulated: Cloud, spec: ClusterSpec) -> None:
    made = cluster.launch(simulated, spec, ignore)
    assert made.master is not None
    assert made.master.purchase == "on-demand"
    assert {one.purchase for one in made.workers} == {"spot"}
    assert made.master.zone == made.workers[0].zone
    cluster.destroy(simulated, spec.name, ignore)


def test_a_maximum_below_the_spot_price_says_so(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    simulation.control("POST", "spot_prices", [{"price": 0.4}])
    with pytest.raises(PriceTooLow, match=r"--spot-price above \$0\.4000, the lowest price now") as refused:
        cluster.launch(simulated, replace(spec, purchase=Purchase(spot_price=0.01)), ignore)
    assert "SpotMaxPriceTooLow" in str(refused.value)
    assert refused.value.exit_status == 5


@pytest.mark.parametrize(
    ("limits", "purchase", "says"),
    [
        ({"L-3819A6DF": 8}, Purchase(), "L-3819A6DF .* is 8, 12 are needed"),
        ({"L-1216C47A": 1}, Purchase(), "L-1216C47A .* is 1, 2 are needed"),
        (
            {"L-3819A6DF": 8, "L-DB2E81BA": 8},
            Purchase(fallback_on_demand=True),
            "L-DB2E81BA .* is 8, 12 are needed",
        ),
    ],
    ids=["of the workers", "of the master", "of both ways"],
)
def test_a_quota_that_is_too_small_ends_the_launch_before_anything_is_made(
    simulation: LocalCloud,
    simulated: Cloud,
    spec: ClusterSpec,
    limits: dict[str, float],
    purchase: Purchase,
    says: str,
) -> None:
    simulation.control("POST", "quotas", limits)
    simulation.control("DELETE", "calls")
    with pytest.raises(QuotaError, match=says) as failed:
        cluster.launch(simulated, replace(spec, purchase=purchase), ignore)
    assert failed.value.exit_status == 4
    assert not any(call["changes"] for call in simulation.control("GET", "calls"))


def test_what_runs_already_counts_against_the_quota(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    simulation.control("POST", "quotas", {"L-1216C47A": 3})
    image = images.find(simulated.region, "").id
    made = simulated.region.change(
        "run_instances", ImageId=image, InstanceType="m6i.large", MinCount=1, MaxCount=1
    )
    assert made is not None
    with pytest.raises(QuotaError, match="is 3, 2 are needed and 2 are in use"):
        cluster.launch(simulated, spec, ignore)
    nodes.terminate(simulated.region, [made["Instances"][0]["InstanceId"]])


@pytest.mark.parametrize(
    ("code", "kind"), [("UnauthorizedOperation", CredentialsError), ("InvalidParameterValue", UsageError)]
)
def test_what_no_other_pool_would_cure_ends_the_launch_at_once(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec, code: str, kind: type[Exception]
) -> None:
    simulation.control("DELETE", "calls")
    simulation.control("POST", "faults", [{"action": "CreateFleet", "code": code, "times": 9}])
    with pytest.raises(kind):
        cluster.launch(simulated, spec, ignore)
    calls = [call["action"] for call in simulation.control("GET", "calls")]
    assert calls.count("CreateFleet") == 1


def test_every_node_carries_tokens_for_metadata_and_encrypted_volumes_that_go_with_it(
    simulated: Cloud, spec: ClusterSpec
) -> None:
    wanted = replace(spec, spill=Spill(count=2, size_gib=33), tags={"team": "vision"})
    made = cluster.launch(simulated, wanted, ignore)
    found = simulated.region.read("describe_instances", InstanceIds=[node.id for node in made.nodes])
    for instance in (one for reservation in found["Reservations"] for one in reservation["Instances"]):
        assert instance["MetadataOptions"]["HttpTokens"] == "required"
        assert instance["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        spilled = [
            one for one in instance["BlockDeviceMappings"] if one["DeviceName"] in ("/dev/sdf", "/dev/sdg")
        ]
        assert [one["Ebs"]["DeleteOnTermination"] for one in spilled] == [True, True]
        assert {"Key": "team", "Value": "vision"} in instance["Tags"]
    ids = [volume for node in made.nodes for volume in node.volumes]
    volumes = simulated.region.read("describe_volumes", VolumeIds=ids)["Volumes"]
    assert len(volumes) == 8
    assert {(one["Encrypted"], one["VolumeType"], one["Size"]) for one in volumes} == {(True, "gp3", 33)}
    cluster.destroy(simulated, spec.name, ignore)


def test_only_ssh_from_the_caller_enters_from_outside(simulated: Cloud, spec: ClusterSpec) -> None:
    cluster.launch(simulated, spec, ignore)
    groups = simulated.region.read(
        "describe_security_groups", Filters=[{"Name": "tag:sparknet:cluster", "Values": [spec.name]}]
    )["SecurityGroups"]
    rules = groups[0]["IpPermissions"]
    outside = [(rule["FromPort"], rule["IpRanges"][0]["CidrIp"]) for rule in rules if rule["IpRanges"]]
    assert outside == [(22, "198.51.100.7/32")]
    own = [rule for rule in rules if rule["UserIdGroupPairs"]]
    assert [pair["GroupId"] for rule in own for pair in rule["UserIdGroupPairs"]] == [groups[0]["GroupId"]]
    cluster.destroy(simulated, spec.name, ignore)


def test_a_retired_type_is_replaced_with_a_note(simulated: Cloud, spec: ClusterSpec) -> None:
    told: list[Event] = []
    wanted = replace(spec, instance_types=("g2.8xlarge",), require_gpus=False)
    cluster.launch(simulated, wanted, told.append)
    assert {one.instance_type for one in workers(simulated, spec)} == {"g4dn.12xlarge"}
    notes = [event.text for event in told if isinstance(event, Note)]
    assert "g2.8xlarge is retired; g4dn.12xlarge takes its place." in notes
    cluster.destroy(simulated, spec.name, ignore)


def test_a_limit_on_the_price_leaves_dear_types_out(simulated: Cloud, spec: ClusterSpec) -> None:
    dear = replace(
        spec, instance_types=("g6.48xlarge", "g6.xlarge"), purchase=Purchase(max_price_per_hour=4.0)
    )
    cluster.launch(simulated, dear, ignore)
    assert {one.instance_type for one in workers(simulated, spec)} == {"g6.xlarge"}
    cluster.destroy(simulated, spec.name, ignore)
    with pytest.raises(UsageError, match=r"--max-price-per-hour 0\.5"):
        cluster.launch(simulated, replace(spec, purchase=Purchase(max_price_per_hour=0.5)), ignore)


def test_the_clusters_key_is_private_and_goes_with_it(simulated: Cloud, spec: ClusterSpec) -> None:
    cluster.launch(simulated, spec, ignore)
    file = simulated.home / "keys" / "us-east-1" / f"{spec.name}.pem"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    cluster.destroy(simulated, spec.name, ignore)
    assert not file.exists()


@pytest.mark.slow
def test_a_hundred_nodes_cost_no_more_calls_than_three_but_for_their_names(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    import time

    counts = []
    for size in (3, 100):
        simulation.control("DELETE", "calls")
        began = time.monotonic()
        cluster.launch(simulated, replace(spec, workers=size), ignore)
        seconds = time.monotonic() - began
        calls = [one["action"] for one in simulation.control("GET", "calls")]
        assert calls.count("CreateTags") == size + 1  # and the group's
        counts.append(len(calls) - size)
        assert len(workers(simulated, spec)) == size
        cluster.destroy(simulated, spec.name, ignore)
    assert abs(counts[1] - counts[0]) <= 20  # a few more polls, none of which grows
    assert seconds < 60


def test_what_was_made_a_moment_ago_may_be_unknown_for_a_while(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    late = {
        "AuthorizeSecurityGroupIngress": "InvalidGroup.NotFound",
        "CreateFleet": "InvalidLaunchTemplateId.NotFoundException",
        "RunInstances": "InvalidKeyPair.NotFound",
    }
    faults = [{"action": action, "code": code, "times": 2} for action, code in late.items()]
    simulation.control("POST", "faults", faults)
    cluster.launch(simulated, spec, ignore)
    assert len(workers(simulated, spec)) == 3
    cluster.destroy(simulated, spec.name, ignore)


def test_what_is_unknown_for_good_is_told_as_what_it_is(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    simulated.region.retry_seconds = 1
    simulation.control(
        "POST", "faults", [{"action": "CreateFleet", "code": "InvalidKeyPair.NotFound", "times": 99}]
    )
    with pytest.raises(UsageError, match="no key pair of that name"):
        cluster.launch(simulated, spec, ignore)
