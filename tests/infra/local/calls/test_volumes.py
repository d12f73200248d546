"""Volumes: EC2's rules of attaching, detaching and deleting."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.local.requests import ZONE, code_of, machine, wait_for

IN_ZONE = {"Placement": {"AvailabilityZone": ZONE}}


@pytest.fixture
def instance_id(ec2: Any) -> str:
    made = machine(ec2, **IN_ZONE)
    wait_for(ec2, made["InstanceId"], "running")
    return str(made["InstanceId"])


def volume(ec2: Any, zone: str = ZONE) -> str:
    return str(ec2.create_volume(Size=8, VolumeType="gp3", AvailabilityZone=zone)["VolumeId"])


def attach(ec2: Any, volume_id: str, instance_id: str, device: str = "/dev/sdf") -> str:
    return code_of(lambda: ec2.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device=device))


def test_a_volume_is_attached_once(ec2: Any, instance_id: str) -> None:
    one = volume(ec2)
    assert attach(ec2, one, instance_id) == ""
    assert attach(ec2, one, instance_id, "/dev/sdg") == "VolumeInUse"


def test_a_device_is_used_once(ec2: Any, instance_id: str) -> None:
    assert attach(ec2, volume(ec2), instance_id) == ""
    assert attach(ec2, volume(ec2), instance_id) == "InvalidParameterValue"


def test_a_volume_of_another_zone_is_refused(ec2: Any, instance_id: str) -> None:
    assert attach(ec2, volume(ec2, "us-east-1a"), instance_id) == "InvalidVolume.ZoneMismatch"


def test_a_terminated_instance_takes_no_volume(ec2: Any, instance_id: str) -> None:
    ec2.terminate_instances(InstanceIds=[instance_id])
    assert attach(ec2, volume(ec2), instance_id) == "IncorrectState"


def test_what_is_attached_later_outlives_the_instance_and_says_so(ec2: Any, instance_id: str) -> None:
    one = volume(ec2)
    attach(ec2, one, instance_id)
    attachment = ec2.describe_volumes(VolumeIds=[one])["Volumes"][0]["Attachments"][0]
    assert attachment["DeleteOnTermination"] is False
    ec2.terminate_instances(InstanceIds=[instance_id])
    wait_for(ec2, instance_id, "terminated")
    left = ec2.describe_volumes(VolumeIds=[one])["Volumes"][0]
    assert (left["State"], left["Attachments"]) == ("available", [])


def test_volumes_of_the_launch_go_with_the_instance_unless_told_otherwise(ec2: Any) -> None:
    def disk(device: str, *, delete: bool) -> dict[str, Any]:
        return {"DeviceName": device, "Ebs": {"VolumeSize": 8, "DeleteOnTermination": delete}}

    made = machine(ec2, BlockDeviceMappings=[disk("/dev/sdf", delete=True), disk("/dev/sdg", delete=False)])
    filters = [{"Name": "attachment.instance-id", "Values": [made["InstanceId"]]}]
    before = {
        one["Attachments"][0]["Device"]: one for one in ec2.describe_volumes(Filters=filters)["Volumes"]
    }
    says = {device: one["Attachments"][0]["DeleteOnTermination"] for device, one in before.items()}
    assert says == {"/dev/sda1": True, "/dev/sdf": True, "/dev/sdg": False}
    ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
    wait_for(ec2, made["InstanceId"], "terminated")
    left = {one["VolumeId"] for one in ec2.describe_volumes()["Volumes"]}
    assert left & {one["VolumeId"] for one in before.values()} == {before["/dev/sdg"]["VolumeId"]}


def test_detaching_needs_no_instance_but_the_right_one(ec2: Any, instance_id: str) -> None:
    one = volume(ec2)
    assert code_of(lambda: ec2.detach_volume(VolumeId=one)) == "IncorrectState"
    attach(ec2, one, instance_id)
    other = machine(ec2, **IN_ZONE)["InstanceId"]
    assert code_of(lambda: ec2.detach_volume(VolumeId=one, InstanceId=other)) == "InvalidAttachment.NotFound"
    assert ec2.detach_volume(VolumeId=one)["InstanceId"] == instance_id
    assert ec2.describe_volumes(VolumeIds=[one])["Volumes"][0]["State"] == "available"


def test_a_volume_in_use_cannot_be_deleted(ec2: Any, instance_id: str) -> None:
    one = volume(ec2)
    attach(ec2, one, instance_id)
    assert code_of(lambda: ec2.delete_volume(VolumeId=one)) == "VolumeInUse"
    ec2.detach_volume(VolumeId=one)
    ec2.delete_volume(VolumeId=one)
    assert code_of(lambda: ec2.describe_volumes(VolumeIds=[one])) == "InvalidVolume.NotFound"


def test_a_volume_can_grow_and_not_shrink(ec2: Any) -> None:
    one = volume(ec2)
    ec2.modify_volume(VolumeId=one, Size=16)
    assert ec2.describe_volumes(VolumeIds=[one])["Volumes"][0]["Size"] == 16
    assert code_of(lambda: ec2.modify_volume(VolumeId=one, Size=8)) == "InvalidParameterValue"
