"""What was just created is not found yet, if the scenario says so."""

from __future__ import annotations

from typing import Any

import pytest

from infra.local import LocalCloud
from tests.infra.local.requests import ZONE, code_of, describe, fleet, ids, machine, name, template, wait_for


@pytest.fixture
def lag(cloud: LocalCloud, ec2: Any) -> Any:
    """Until it is called, nothing that is created is found."""
    cloud.control("POST", "scenario", {"lag_seconds": 600})
    yield lambda: cloud.control("POST", "clock", {"advance_seconds": 600})
    cloud.control("POST", "scenario", {"lag_seconds": 0})
    cloud.control("POST", "clock", {"advance_seconds": 600})


def test_an_instance_is_not_found_at_first(ec2: Any, lag: Any) -> None:
    made = machine(ec2)["InstanceId"]
    assert code_of(lambda: describe(ec2, made)) == "InvalidInstanceID.NotFound"
    tags = [{"Key": "a", "Value": "b"}]
    assert code_of(lambda: ec2.create_tags(Resources=[made], Tags=tags)) == "InvalidInstanceID.NotFound"
    lag()
    wait_for(ec2, made, "running")


def test_a_group_can_be_used_only_when_it_is_found(ec2: Any, lag: Any) -> None:
    group = ec2.create_security_group(GroupName=name(), Description="test")["GroupId"]
    permission = {
        "IpProtocol": "tcp",
        "FromPort": 22,
        "ToPort": 22,
        "IpRanges": [{"CidrIp": "203.0.113.9/32"}],
    }

    def authorize() -> str:
        call = {"GroupId": group, "IpPermissions": [permission]}
        return code_of(lambda: ec2.authorize_security_group_ingress(**call))

    assert authorize() == "InvalidGroup.NotFound"
    assert code_of(lambda: machine(ec2, SecurityGroupIds=[group])) == "InvalidGroup.NotFound"
    lag()
    assert authorize() == ""


def test_templates_and_volumes_lag_as_well_and_old_ones_do_not(cloud: LocalCloud, ec2: Any, lag: Any) -> None:
    of = template(ec2)
    pool = [{"InstanceType": "g6.xlarge", "AvailabilityZone": ZONE}]
    assert code_of(lambda: fleet(ec2, pool, 1, of_template=of)) == "InvalidLaunchTemplateId.NotFound"
    volume = ec2.create_volume(Size=8, AvailabilityZone=ZONE)["VolumeId"]
    assert code_of(lambda: ec2.delete_volume(VolumeId=volume)) == "InvalidVolume.NotFound"
    lag()
    ec2.delete_volume(VolumeId=volume)
    made = ids(fleet(ec2, pool, 1, of_template=of))
    assert ec2.describe_launch_templates(LaunchTemplateIds=[of])["LaunchTemplates"]
    assert code_of(lambda: describe(ec2, made[0])) == "InvalidInstanceID.NotFound"
