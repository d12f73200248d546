"""Client tokens: the same call twice is done once, the same token for another call is refused."""

from __future__ import annotations

from typing import Any

from infra.local import LocalCloud
from tests.infra.local.requests import ZONE, code_of, fleet, ids, machine, name, template, wait_for

POOL = [{"InstanceType": "g6.xlarge", "AvailabilityZone": ZONE}]


def test_run_instances_twice_with_one_token_makes_one_instance(ec2: Any) -> None:
    token = name()
    first = machine(ec2, ClientToken=token)
    again = machine(ec2, ClientToken=token)
    assert again["InstanceId"] == first["InstanceId"]
    assert (
        len(ec2.describe_instances(Filters=[{"Name": "client-token", "Values": [token]}])["Reservations"])
        == 1
    )


def test_the_token_for_another_request_is_a_mismatch(ec2: Any) -> None:
    token = name()
    machine(ec2, ClientToken=token)
    assert (
        code_of(lambda: machine(ec2, ClientToken=token, InstanceType="m6i.xlarge"))
        == "IdempotentParameterMismatch"
    )


def test_create_fleet_twice_with_one_token_makes_one_fleet(ec2: Any) -> None:
    token, of = name(), template(ec2)
    first = fleet(ec2, POOL, 3, of_template=of, token=token)
    again = fleet(ec2, POOL, 3, of_template=of, token=token)
    assert again["FleetId"] == first["FleetId"]
    assert ids(again) == ids(first)
    assert code_of(lambda: fleet(ec2, POOL, 4, of_template=of, token=token)) == "IdempotentParameterMismatch"


def test_a_token_that_met_missing_capacity_can_be_used_again_for_the_same_request_only(
    cloud: LocalCloud, ec2: Any
) -> None:
    token = name()
    cloud.control("POST", "capacity", [{"machines": 0}])
    wanted = {"ClientToken": token, "Placement": {"AvailabilityZone": ZONE}}
    assert code_of(lambda: machine(ec2, **wanted)) == "InsufficientInstanceCapacity"
    assert code_of(lambda: machine(ec2, **wanted, InstanceType="m6i.xlarge")) == "IdempotentParameterMismatch"
    cloud.control("POST", "capacity", [])
    wait_for(ec2, machine(ec2, **wanted)["InstanceId"], "running")


def test_create_volume_and_create_launch_template_know_their_tokens(ec2: Any) -> None:
    token = name()
    made = [ec2.create_volume(Size=8, AvailabilityZone=ZONE, ClientToken=token)["VolumeId"] for _ in range(2)]
    assert made[0] == made[1]
    called = name()
    data = {
        "LaunchTemplateName": called,
        "LaunchTemplateData": {"InstanceType": "m6i.large"},
        "ClientToken": token,
    }
    templates = [ec2.create_launch_template(**data)["LaunchTemplate"]["LaunchTemplateId"] for _ in range(2)]
    assert templates[0] == templates[1]
    again = {**data, "ClientToken": name()}
    assert (
        code_of(lambda: ec2.create_launch_template(**again))
        == "InvalidLaunchTemplateName.AlreadyExistsException"
    )
