"""RunInstances: the template and the call merged, and every reason for which EC2 would refuse."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.infra.local.requests import IMAGE, code_of, describe, machine, name, template, wait_for

DISK = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 100, "VolumeType": "gp3", "Encrypted": True}}


def disk(**ebs: Any) -> dict[str, Any]:
    return {"BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 8, **ebs}}]}


def volumes_of(ec2: Any, instance_id: str) -> dict[str, dict[str, Any]]:
    """Device -> volume."""
    filters = [{"Name": "attachment.instance-id", "Values": [instance_id]}]
    found = ec2.describe_volumes(Filters=filters)["Volumes"]
    return {volume["Attachments"][0]["Device"]: volume for volume in found}


def test_an_instance_is_pending_first_and_running_soon(ec2: Any) -> None:
    made = machine(ec2)
    assert made["State"]["Name"] == "pending"
    wait_for(ec2, made["InstanceId"], "running")


def test_private_addresses_are_loopback_ones_inside_the_subnet_and_public_ones_lead_nowhere(ec2: Any) -> None:
    import ipaddress

    made = machine(ec2)
    subnet = ec2.describe_subnets(SubnetIds=[made["SubnetId"]])["Subnets"][0]
    private = ipaddress.ip_address(made["PrivateIpAddress"])
    assert private in ipaddress.ip_network(subnet["CidrBlock"])
    assert private.is_loopback
    public = ipaddress.ip_address(made["PublicIpAddress"])
    assert any(public in ipaddress.ip_network(net) for net in ("203.0.113.0/24", "198.18.0.0/15"))


def test_the_template_gives_disks_metadata_options_user_data_and_shutdown_behaviour(ec2: Any) -> None:
    of = template(
        ec2,
        BlockDeviceMappings=[DISK],
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        UserData=base64.b64encode(b"#!/bin/sh\n").decode(),
        InstanceInitiatedShutdownBehavior="terminate",
    )
    made = machine(ec2, LaunchTemplate={"LaunchTemplateId": of, "Version": "$Latest"})
    found = describe(ec2, made["InstanceId"])
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    assert found["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    disks = volumes_of(ec2, made["InstanceId"])
    assert {device: volume["Size"] for device, volume in disks.items()} == {"/dev/sda1": 15, "/dev/sdf": 100}
    assert disks["/dev/sdf"]["Encrypted"]
    attribute = ec2.describe_instance_attribute(
        InstanceId=made["InstanceId"], Attribute="instanceInitiatedShutdownBehavior"
    )
    assert attribute["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"


def test_the_call_wins_over_the_template_and_disks_are_merged_by_device(ec2: Any) -> None:
    of = template(ec2, BlockDeviceMappings=[DISK])
    larger = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 200}}
    made = machine(
        ec2,
        LaunchTemplate={"LaunchTemplateId": of},
        InstanceType="m6i.xlarge",
        BlockDeviceMappings=[larger, {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 30}}],
    )
    assert made["InstanceType"] == "m6i.xlarge"
    disks = volumes_of(ec2, made["InstanceId"])
    assert {device: volume["Size"] for device, volume in disks.items()} == {"/dev/sda1": 30, "/dev/sdf": 200}
    assert disks["/dev/sdf"]["VolumeType"] == "gp3"
    assert disks["/dev/sdf"]["Encrypted"]


def test_tags_of_template_and_call_reach_instance_volume_and_interface(ec2: Any) -> None:
    def tags(kind: str, key: str, value: str) -> dict[str, Any]:
        return {"ResourceType": kind, "Tags": [{"Key": key, "Value": value}]}

    of = template(ec2, TagSpecifications=[tags("instance", "who", "template"), tags("volume", "disk", "yes")])
    made = machine(
        ec2,
        LaunchTemplate={"LaunchTemplateId": of},
        TagSpecifications=[tags("instance", "who", "call"), tags("network-interface", "nic", "yes")],
    )
    found = describe(ec2, made["InstanceId"])
    instance_tags = {tag["Key"]: tag["Value"] for tag in found["Tags"]}
    assert instance_tags["who"] == "call"
    assert instance_tags["aws:ec2launchtemplate:id"] == of
    assert all(
        {"Key": "disk", "Value": "yes"} in volume["Tags"]
        for volume in volumes_of(ec2, made["InstanceId"]).values()
    )
    interface = ec2.describe_network_interfaces(
        NetworkInterfaceIds=[found["NetworkInterfaces"][0]["NetworkInterfaceId"]]
    )["NetworkInterfaces"][0]
    assert interface["TagSet"] == [{"Key": "nic", "Value": "yes"}]


def test_an_image_can_be_named_by_its_parameter(ec2: Any) -> None:
    parameter = "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id"
    assert machine(ec2, ImageId=f"resolve:ssm:{parameter}")["ImageId"] == "ami-0b0b0b0b0b0b02204"


def test_without_a_zone_the_instance_goes_where_the_type_is_offered(ec2: Any) -> None:
    made = machine(ec2, InstanceType="g7e.2xlarge")
    assert made["Placement"]["AvailabilityZone"] in ("us-east-1a", "us-east-1c")


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "nonsense"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "g9.huge"}, "InvalidParameterValue"),
        ({"KeyName": "no-such-key"}, "InvalidKeyPair.NotFound"),
        ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidGroup.NotFound"),
        ({"SubnetId": "subnet-0123456789abcdef0"}, "InvalidSubnetID.NotFound"),
        ({"IamInstanceProfile": {"Name": "nobody"}}, "InvalidParameterValue"),
        ({"LaunchTemplate": {"LaunchTemplateName": "none"}}, "InvalidLaunchTemplateName.NotFoundException"),
        (
            {"LaunchTemplate": {"LaunchTemplateId": "lt-0123456789abcdef0"}},
            "InvalidLaunchTemplateId.NotFound",
        ),
        ({"Placement": {"GroupName": "none"}}, "InvalidPlacementGroup.Unknown"),
        ({"Placement": {"AvailabilityZone": "us-east-1z"}}, "InvalidParameterValue"),
        ({"InstanceType": "g7e.2xlarge", "Placement": {"AvailabilityZone": "us-east-1b"}}, "Unsupported"),
        (disk(VolumeType="gp9"), "InvalidParameterValue"),
        (disk(VolumeType="gp2", Throughput=250), "InvalidParameterDependency"),
        (disk(SnapshotId="snap-0123456789abcdef0"), "InvalidSnapshot.NotFound"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_a_request_that_cannot_be_is_refused_with_the_code_of_ec2(
    ec2: Any, parameters: dict[str, Any], code: str
) -> None:
    before = len(ec2.describe_instances()["Reservations"])
    assert code_of(lambda: machine(ec2, **parameters)) == code
    assert len(ec2.describe_instances()["Reservations"]) == before


def test_a_placement_group_can_be_made_and_used_and_not_removed_while_in_use(ec2: Any) -> None:
    group = name()
    assert (
        ec2.create_placement_group(GroupName=group, Strategy="cluster")["PlacementGroup"]["State"]
        == "available"
    )
    made = machine(ec2, Placement={"GroupName": group})
    assert made["Placement"]["GroupName"] == group
    assert code_of(lambda: ec2.delete_placement_group(GroupName=group)) == "InvalidPlacementGroup.InUse"
    ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
    wait_for(ec2, made["InstanceId"], "terminated")
    ec2.delete_placement_group(GroupName=group)
    assert (
        code_of(lambda: ec2.describe_placement_groups(GroupNames=[group])) == "InvalidPlacementGroup.Unknown"
    )


def test_an_instance_profile_is_shown_on_the_instance(cloud: Any, ec2: Any) -> None:
    from tests.infra.local.conftest import client

    iam = client(cloud, "iam")
    profile = name()
    iam.create_instance_profile(InstanceProfileName=profile)
    iam.close()
    made = machine(ec2, IamInstanceProfile={"Name": profile}, ImageId=IMAGE)
    assert describe(ec2, made["InstanceId"])["IamInstanceProfile"]["Arn"].endswith(profile)
