"""CreateFleet of type instant: by capacity and price, all or none, with a reason for each refusal."""

from __future__ import annotations

from typing import Any

import pytest

from infra.local import LocalCloud
from tests.infra.local.requests import ZONE, code_of, describe, errors, fleet, ids, machine, name, template

ALL_IN_ONE = {"SingleInstanceType": True, "SingleAvailabilityZone": True}
SPOT_BEST = "price-capacity-optimized"


def zones(*letters: str, instance_type: str = "g6.xlarge") -> list[dict[str, Any]]:
    return [{"InstanceType": instance_type, "AvailabilityZone": f"us-east-1{letter}"} for letter in letters]


def zone_of(ec2: Any, instance_id: str) -> str:
    return str(describe(ec2, instance_id)["Placement"]["AvailabilityZone"])


def test_all_instances_come_from_the_cheapest_pool(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "spot_prices", [{"instance_type": "g6.xlarge", "zone": ZONE, "price": 0.01}])
    answer = fleet(
        ec2, zones("a", "b", "c"), 4, AllocationStrategy=SPOT_BEST, **ALL_IN_ONE, MinTargetCapacity=4
    )
    assert len(ids(answer)) == 4
    assert {zone_of(ec2, one) for one in ids(answer)} == {ZONE}
    assert answer["Errors"] == []
    group = answer["Instances"][0]
    assert group["Lifecycle"] == "spot"
    assert group["InstanceType"] == "g6.xlarge"
    assert group["LaunchTemplateAndOverrides"]["Overrides"]["AvailabilityZone"] == ZONE


def test_the_one_pool_that_has_capacity_is_found_and_the_others_are_named(
    cloud: LocalCloud, ec2: Any
) -> None:
    cloud.control(
        "POST", "capacity", [{"machines": 0}, {"instance_type": "g5.xlarge", "zone": ZONE, "machines": 3}]
    )
    overrides = zones("a", "b", "c") + zones("a", "b", instance_type="g5.xlarge")
    answer = fleet(ec2, overrides, 3, AllocationStrategy=SPOT_BEST, **ALL_IN_ONE, MinTargetCapacity=3)
    assert {(describe(ec2, one)["InstanceType"], zone_of(ec2, one)) for one in ids(answer)} == {
        ("g5.xlarge", ZONE)
    }
    assert {code for _, code in errors(answer)} == {"InsufficientInstanceCapacity"}
    assert ("us-east-1a", "InsufficientInstanceCapacity") in errors(answer)


def test_min_target_capacity_is_all_or_none(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "capacity", [{"instance_type": "g6.*", "machines": 2}])
    tag = name()
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "test", "Value": tag}]}]
    answer = fleet(ec2, zones("a", "b"), 3, tags=tags, **ALL_IN_ONE, MinTargetCapacity=3)
    assert ids(answer) == []
    assert sorted(errors(answer)) == [
        ("us-east-1a", "InsufficientInstanceCapacity"),
        ("us-east-1b", "InsufficientInstanceCapacity"),
    ]
    assert ec2.describe_instances(Filters=[{"Name": "tag:test", "Values": [tag]}])["Reservations"] == []


def test_without_a_minimum_a_part_is_delivered_and_the_rest_explained(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "capacity", [{"instance_type": "g6.xlarge", "zone": ZONE, "machines": 2}])
    answer = fleet(ec2, zones("b"), 3, **ALL_IN_ONE)
    assert len(ids(answer)) == 2
    assert errors(answer) == [(ZONE, "InsufficientInstanceCapacity")]


def test_spread_over_pools_fills_from_several(cloud: LocalCloud, ec2: Any) -> None:
    rules = [{"instance_type": "g6.xlarge", "zone": f"us-east-1{letter}", "machines": 2} for letter in "abc"]
    cloud.control("POST", "capacity", rules)
    answer = fleet(ec2, zones("a", "b", "c"), 5, AllocationStrategy="lowest-price")
    assert sorted(len(group["InstanceIds"]) for group in answer["Instances"]) == [1, 2, 2]


def test_diversified_divides_evenly(ec2: Any) -> None:
    answer = fleet(ec2, zones("a", "b", "c"), 6, AllocationStrategy="diversified")
    assert sorted(len(group["InstanceIds"]) for group in answer["Instances"]) == [2, 2, 2]


def test_on_demand_follows_the_priorities(ec2: Any) -> None:
    overrides = [
        {"InstanceType": "g6.xlarge", "AvailabilityZone": ZONE, "Priority": 2.0},
        {"InstanceType": "g6e.xlarge", "AvailabilityZone": ZONE, "Priority": 1.0},
    ]
    answer = fleet(ec2, overrides, 2, purchase="on-demand", AllocationStrategy="prioritized", **ALL_IN_ONE)
    assert {describe(ec2, one)["InstanceType"] for one in ids(answer)} == {"g6e.xlarge"}
    assert answer["Instances"][0]["Lifecycle"] == "on-demand"
    assert all("InstanceLifecycle" not in describe(ec2, one) for one in ids(answer))


def test_the_template_is_honoured_and_the_override_wins(ec2: Any) -> None:
    disk = {
        "DeviceName": "/dev/sdf",
        "Ebs": {"VolumeSize": 50, "VolumeType": "gp3", "Iops": 4000, "Throughput": 250},
    }
    of = template(ec2, BlockDeviceMappings=[disk], MetadataOptions={"HttpTokens": "required"})
    tags = [
        {"ResourceType": kind, "Tags": [{"Key": "kind", "Value": kind}]}
        for kind in ("fleet", "instance", "volume", "network-interface")
    ]
    answer = fleet(ec2, zones("b"), 1, of_template=of, tags=tags)
    found = describe(ec2, ids(answer)[0])
    assert found["InstanceType"] == "g6.xlarge"
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    assert {"Key": "kind", "Value": "instance"} in found["Tags"]
    assert {"Key": "aws:ec2:fleet-id", "Value": answer["FleetId"]} in found["Tags"]
    filters = [{"Name": "attachment.instance-id", "Values": [found["InstanceId"]]}]
    disks = {one["Attachments"][0]["Device"]: one for one in ec2.describe_volumes(Filters=filters)["Volumes"]}
    assert (disks["/dev/sdf"]["Iops"], disks["/dev/sdf"]["Throughput"]) == (4000, 250)
    assert disks["/dev/sdf"]["Tags"] == [{"Key": "kind", "Value": "volume"}]
    assert disks["/dev/sdf"]["Attachments"][0]["DeleteOnTermination"]


def test_a_type_that_a_zone_lacks_is_an_error_of_that_override_only(ec2: Any) -> None:
    overrides = zones("a", "b", instance_type="g7e.2xlarge")
    answer = fleet(ec2, overrides, 1, **ALL_IN_ONE, MinTargetCapacity=1)
    assert zone_of(ec2, ids(answer)[0]) == "us-east-1a"
    assert errors(answer) == [("us-east-1b", "InvalidFleetConfiguration")]


def test_an_override_without_a_zone_may_go_to_any_zone_that_has_the_type(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "capacity", [{"machines": 0}, {"zone": "us-east-1d", "machines": 1}])
    answer = fleet(ec2, [{"InstanceType": "g6.xlarge"}], 1, **ALL_IN_ONE, MinTargetCapacity=1)
    assert zone_of(ec2, ids(answer)[0]) == "us-east-1d"


def test_a_maximum_price_below_the_market_is_an_error_of_its_pool(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "spot_prices", [{"zone": "us-east-1a", "price": 0.9}, {"zone": ZONE, "price": 0.2}])
    overrides = [{**override, "MaxPrice": "0.5"} for override in zones("a", "b")]
    answer = fleet(ec2, overrides, 2, AllocationStrategy="capacity-optimized-prioritized", **ALL_IN_ONE)
    assert {zone_of(ec2, one) for one in ids(answer)} == {ZONE}
    only_dear = fleet(ec2, overrides[:1], 1)
    assert errors(only_dear) == [("us-east-1a", "SpotMaxPriceTooLow")]
    assert "0.9" in only_dear["Errors"][0]["ErrorMessage"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"MinTargetCapacity": 2}, "InvalidParameterCombination"),
        ({"AllocationStrategy": "luck"}, "InvalidParameterValue"),
    ],
)
def test_options_that_cannot_be_are_refused(ec2: Any, options: dict[str, Any], code: str) -> None:
    assert code_of(lambda: fleet(ec2, zones("b"), 2, **options)) == code


def test_requirements_instead_of_types_are_refused(ec2: Any) -> None:
    needs = {"VCpuCount": {"Min": 4}, "MemoryMiB": {"Min": 1024}}
    assert code_of(lambda: fleet(ec2, [{"InstanceRequirements": needs}], 1)) == "UnsupportedOperation"


def test_a_template_that_is_gone_is_not_found(ec2: Any) -> None:
    of = template(ec2)
    ec2.delete_launch_template(LaunchTemplateId=of)
    assert code_of(lambda: fleet(ec2, zones("b"), 1, of_template=of)) == "InvalidLaunchTemplateId.NotFound"


def test_deleting_an_instant_fleet_terminates_its_instances_and_is_refused_without(ec2: Any) -> None:
    answer = fleet(ec2, zones("b"), 2)
    kept = ec2.delete_fleets(FleetIds=[answer["FleetId"]], TerminateInstances=False)
    assert len(kept["UnsuccessfulFleetDeletions"]) == 1
    assert {describe(ec2, one)["State"]["Name"] for one in ids(answer)} <= {"pending", "running"}
    gone = ec2.delete_fleets(FleetIds=[answer["FleetId"]], TerminateInstances=True)
    assert len(gone["SuccessfulFleetDeletions"]) == 1
    assert {describe(ec2, one)["State"]["Name"] for one in ids(answer)} <= {"shutting-down", "terminated"}


def test_a_dry_run_launches_nothing(ec2: Any) -> None:
    before = len(ec2.describe_fleets()["Fleets"])
    reference = {"LaunchTemplateId": template(ec2), "Version": "$Latest"}
    call = {
        "Type": "instant",
        "DryRun": True,
        "LaunchTemplateConfigs": [{"LaunchTemplateSpecification": reference, "Overrides": zones("b")}],
        "TargetCapacitySpecification": {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "spot"},
    }
    assert code_of(lambda: ec2.create_fleet(**call)) == "DryRunOperation"
    assert len(ec2.describe_fleets()["Fleets"]) == before


def test_a_fleet_can_be_made_to_try_one_pool_only(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "scenario", {"pools_per_fleet": 1})
    cloud.control("POST", "capacity", [{"zone": "us-east-1a", "machines": 0}])
    cloud.control("POST", "spot_prices", [{"zone": "us-east-1a", "price": 0.1}, {"zone": ZONE, "price": 0.2}])
    first = fleet(ec2, zones("a", "b"), 2, **ALL_IN_ONE, MinTargetCapacity=2)
    assert (ids(first), errors(first)) == ([], [("us-east-1a", "InsufficientInstanceCapacity")])
    assert len(ids(fleet(ec2, zones("b"), 2, **ALL_IN_ONE, MinTargetCapacity=2))) == 2


def test_a_subnet_without_free_addresses_is_an_error_of_its_pool(ec2: Any) -> None:
    vpc = ec2.describe_vpcs()["Vpcs"][0]
    block = vpc["CidrBlock"].replace(".0.0/16", ".255.240/28")
    subnet = ec2.create_subnet(VpcId=vpc["VpcId"], CidrBlock=block, AvailabilityZone=ZONE)["Subnet"][
        "SubnetId"
    ]
    small, large = {"InstanceType": "g6.xlarge", "SubnetId": subnet}, zones("b", instance_type="g5.xlarge")[0]
    answer = fleet(ec2, [small, large], 12, **ALL_IN_ONE, MinTargetCapacity=12)
    assert [error["ErrorCode"] for error in answer["Errors"]] == ["InsufficientFreeAddressesInSubnet"]
    assert {describe(ec2, one)["InstanceType"] for one in ids(answer)} == {"g5.xlarge"}
    assert len(ids(fleet(ec2, [small], 11))) == 11
    refused = code_of(lambda: machine(ec2, SubnetId=subnet))
    assert refused == "InsufficientFreeAddressesInSubnet"
