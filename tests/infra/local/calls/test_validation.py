"""What EC2 refuses by its look, and how it cuts long answers into pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.local import LocalCloud
from tests.infra.local.conftest import client
from tests.infra.local.requests import IMAGE, code_of, machine, name


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
