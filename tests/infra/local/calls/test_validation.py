"""What EC2 refuses by its look, and how it cuts long answers into pages."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.local import LocalCloud
from tests.infra.local.conftest import client
from tests.infra.local.requests import IMAGE, ZONE, code_of, describe, fleet, machine, name, wait_for


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda ec2: ec2.describe_instances(InstanceIds=["i-bogus"]), "InvalidInstanceID.Malformed"),
        (lambda ec2: ec2.terminate_instances(InstanceIds=["vol-01234567"]), "InvalidInstanceID.Malformed"),
        (lambda ec2: ec2.describe_images(ImageIds=["ami-bogus"]), "InvalidAMIID.Malformed"),
        (lambda ec2: ec2.run_instances(ImageId="ubuntu", MinCount=1, MaxCount=1), "InvalidAMIID.Malformed"),
        (lambda ec2: ec2.delete_security_group(GroupId="sg-bogus"), "InvalidGroupId.Malformed"),
        (
            lambda ec2: ec2.run_instances(
                ImageId=IMAGE, SecurityGroupIds=["default"], MinCount=1, MaxCount=1
            ),
            "InvalidGroupId.Malformed",
        ),
        (
            lambda ec2: ec2.delete_launch_template(LaunchTemplateName="none"),
            "InvalidLaunchTemplateName.NotFoundException",
        ),
        (
            lambda ec2: ec2.delete_launch_template(LaunchTemplateId="lt-01234567"),
            "InvalidLaunchTemplateId.NotFound",
        ),
        (lambda ec2: ec2.create_volume(Size=1, AvailabilityZone="us-east-1z"), "InvalidZone.NotFound"),
        (
            lambda ec2: ec2.create_volume(Size=1, AvailabilityZone="us-east-1a", VolumeType="floppy"),
            "UnknownVolumeType",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_code_of_ec2(
    ec2: Any, call: Callable[[Any], Any], code: str
) -> None:
    assert code_of(lambda: call(ec2)) == code


MACHINE = {"ImageId": IMAGE, "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1}


def tagged(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in pairs]}]


def disk(**ebs: Any) -> dict[str, Any]:
    return {**MACHINE, "BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": ebs}]}


def template_of(data: dict[str, Any]) -> dict[str, Any]:
    return {"LaunchTemplateName": name(), "LaunchTemplateData": data}


LONG = "x" * 16_385
ENCODED = base64.b64encode(LONG.encode()).decode()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda ec2: ec2.run_instances(**MACHINE, UserData=LONG), "InvalidParameterValue"),
        (
            lambda ec2: ec2.create_launch_template(**template_of({"UserData": ENCODED})),
            "InvalidParameterValue",
        ),
        (lambda ec2: ec2.run_instances(**{**MACHINE, "MinCount": 0}), "InvalidParameterValue"),
        (lambda ec2: ec2.run_instances(**{**MACHINE, "MinCount": 0, "MaxCount": 0}), "InvalidParameterValue"),
        (lambda ec2: ec2.run_instances(**{**MACHINE, "MinCount": 2}), "InvalidParameterValue"),
        (
            lambda ec2: ec2.request_spot_instances(
                InstanceCount=0, LaunchSpecification={"ImageId": IMAGE, "InstanceType": "m6i.large"}
            ),
            "InvalidParameterValue",
        ),
        (lambda ec2: fleet(ec2, [{"InstanceType": "m6i.large"}], 0), "InvalidParameterValue"),
        (
            lambda ec2: ec2.run_instances(**MACHINE, TagSpecifications=tagged(("aws:mine", "x"))),
            "InvalidParameterValue",
        ),
        (
            lambda ec2: ec2.run_instances(**MACHINE, TagSpecifications=tagged(("a", "1"), ("a", "2"))),
            "InvalidParameterValue",
        ),
        (
            lambda ec2: ec2.run_instances(
                **MACHINE, TagSpecifications=tagged(*((f"k{n}", "") for n in range(51)))
            ),
            "TagLimitExceeded",
        ),
        (
            lambda ec2: ec2.run_instances(**MACHINE, TagSpecifications=tagged(("k" * 129, ""))),
            "InvalidParameterValue",
        ),
        (
            lambda ec2: ec2.run_instances(**MACHINE, TagSpecifications=tagged(("k", "v" * 257))),
            "InvalidParameterValue",
        ),
        (
            lambda ec2: ec2.create_launch_template(
                **template_of({"TagSpecifications": tagged(("a", "1"), ("a", "2"))})
            ),
            "InvalidParameterValue",
        ),
        (lambda ec2: ec2.run_instances(**disk(VolumeSize=0)), "InvalidParameterValue"),
        (lambda ec2: ec2.run_instances(**disk(VolumeSize=124, VolumeType="st1")), "InvalidParameterValue"),
        (lambda ec2: ec2.run_instances(**disk(VolumeSize=16385, VolumeType="gp2")), "InvalidParameterValue"),
        (lambda ec2: ec2.create_volume(Size=0, AvailabilityZone=ZONE), "InvalidParameterValue"),
        (
            lambda ec2: ec2.create_volume(Size=124, AvailabilityZone=ZONE, VolumeType="sc1"),
            "InvalidParameterValue",
        ),
        (lambda ec2: ec2.describe_instances(MaxResults=4), "InvalidParameterValue"),
        (lambda ec2: ec2.describe_volumes(MaxResults=1), "InvalidParameterValue"),
        (lambda ec2: ec2.describe_tags(MaxResults=1001), "InvalidParameterValue"),
    ],
)
def test_what_ec2_refuses_by_its_rules_is_refused_here(
    ec2: Any, call: Callable[[Any], Any], code: str
) -> None:
    assert code_of(lambda: call(ec2)) == code


@pytest.mark.parametrize(
    "identity",
    [
        "i-",
        "vol-",
        "sg-",
        "subnet-",
        "vpc-",
        "eni-",
        "ami-",
        "snap-",
        "lt-",
        "key-",
        "sir-",
        "igw-",
        "rtb-",
        "acl-",
    ],
)
def test_what_is_not_there_cannot_be_tagged(ec2: Any, identity: str) -> None:
    tags = [{"Key": "a", "Value": "b"}]
    code = code_of(lambda: ec2.create_tags(Resources=[f"{identity}0123456789abcdef0"], Tags=tags))
    assert "NotFound" in code or "Invalid" in code
    assert code != "InternalError"


def test_what_is_at_the_limit_is_taken(ec2: Any) -> None:
    pairs = [("empty", ""), ("corp:team", "a, b"), *((f"k{number}", "v" * 256) for number in range(48))]
    made = machine(ec2, UserData=LONG[1:], TagSpecifications=tagged(*pairs))
    found = {tag["Key"]: tag["Value"] for tag in describe(ec2, made["InstanceId"])["Tags"]}
    assert found == dict(pairs)
    wanted = [{"Name": "tag:corp:team", "Values": ["a, b"]}, {"Name": "tag:empty", "Values": [""]}]
    reservations = ec2.describe_instances(Filters=wanted, MaxResults=5)["Reservations"]
    assert [one["InstanceId"] for part in reservations for one in part["Instances"]] == [made["InstanceId"]]
    kept = ec2.describe_instance_attribute(InstanceId=made["InstanceId"], Attribute="userData")
    assert base64.b64decode(kept["UserData"]["Value"]).decode() == LONG[1:]


def test_user_data_that_gzip_made_is_kept_byte_by_byte(ec2: Any) -> None:
    packed = gzip.compress(b"#!/bin/sh\n")
    made = machine(ec2, UserData=packed)
    kept = ec2.describe_instance_attribute(InstanceId=made["InstanceId"], Attribute="userData")
    assert base64.b64decode(kept["UserData"]["Value"]) == packed


def test_a_machine_changes_its_type_only_while_it_is_stopped(ec2: Any) -> None:
    made = machine(ec2)["InstanceId"]
    wait_for(ec2, made, "running")
    change = {"InstanceId": made, "InstanceType": {"Value": "m6i.xlarge"}}
    assert code_of(lambda: ec2.modify_instance_attribute(**change)) == "IncorrectInstanceState"
    older = {"InstanceId": made, "Attribute": "instanceType", "Value": "m6i.xlarge"}
    assert code_of(lambda: ec2.modify_instance_attribute(**older)) == "IncorrectInstanceState"
    assert (
        code_of(lambda: ec2.modify_instance_attribute(InstanceId=made, Groups=[])) != "IncorrectInstanceState"
    )
    ec2.stop_instances(InstanceIds=[made])
    wait_for(ec2, made, "stopped")
    ec2.modify_instance_attribute(**change)
    assert describe(ec2, made)["InstanceType"] == "m6i.xlarge"


def test_what_ec2_shows_is_shown(ec2: Any) -> None:
    made = machine(ec2, BlockDeviceMappings=disk(VolumeSize=10, VolumeType="gp3")["BlockDeviceMappings"])
    assert describe(ec2, made["InstanceId"])["EnaSupport"]
    assert ec2.describe_images(ImageIds=[IMAGE])["Images"][0]["EnaSupport"]
    mine = [{"Name": "attachment.instance-id", "Values": [made["InstanceId"]]}]
    shown = {(one["Iops"], one["Throughput"]) for one in ec2.describe_volumes(Filters=mine)["Volumes"]}
    assert shown == {(3000, 125)}


def test_a_filter_that_does_not_exist_is_named(ec2: Any) -> None:
    machine(ec2)  # moto looks at filters only when it compares
    wanted = [{"Name": "nonsense", "Values": ["x"]}]
    for call in (ec2.describe_instances, ec2.describe_volumes):
        with pytest.raises(ClientError, match=r"InvalidParameterValue.*The filter 'nonsense' is invalid"):
            call(Filters=wanted)


def test_a_long_answer_comes_in_pages(ec2: Any) -> None:
    called = [name() for _ in range(7)]
    for one in called:
        ec2.create_security_group(GroupName=one, Description="test")
    wanted = [{"Name": "group-name", "Values": called}]
    first = ec2.describe_security_groups(Filters=wanted, MaxResults=5)
    assert len(first["SecurityGroups"]) == 5
    rest = ec2.describe_security_groups(Filters=wanted, MaxResults=5, NextToken=first["NextToken"])
    assert len(rest["SecurityGroups"]) == 2
    assert "NextToken" not in rest
    pages = ec2.get_paginator("describe_security_groups").paginate(
        Filters=wanted, PaginationConfig={"PageSize": 5}
    )
    assert {one["GroupName"] for page in pages for one in page["SecurityGroups"]} == set(called)


def test_a_quota_can_be_raised(cloud: LocalCloud) -> None:
    quotas = client(cloud, "service-quotas")
    asked = {"ServiceCode": "ec2", "QuotaCode": "L-3819A6DF"}
    answer = quotas.request_service_quota_increase(**asked, DesiredValue=9000)["RequestedQuota"]
    assert (answer["DesiredValue"], answer["QuotaCode"]) == (9000, "L-3819A6DF")
    assert quotas.get_service_quota(**asked)["Quota"]["Value"] == 9000
    assert (
        code_of(lambda: quotas.request_service_quota_increase(**asked, DesiredValue=1))
        == "IllegalArgumentException"
    )
    quotas.close()
