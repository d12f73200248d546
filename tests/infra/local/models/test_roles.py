"""Instance profiles: the credentials that an instance is given, and what its role's policies allow."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from infra.local import LocalCloud
from infra.local.models.roles import permissions_of
from tests.infra.local.instance_roles import credentials_of
from tests.infra.local.requests import machines, name

TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})


def policy(*actions: str, effect: str = "Allow") -> dict[str, Any]:
    return {"Effect": effect, "Action": list(actions), "Resource": "*"}


@pytest.fixture
def role(cloud: LocalCloud) -> str:
    """A role without policies, in a profile of its name."""
    made = name()
    with closing(service(cloud, "iam")) as iam:
        iam.create_role(RoleName=made, AssumeRolePolicyDocument=TRUST)
        iam.create_instance_profile(InstanceProfileName=made)
        iam.add_role_to_instance_profile(InstanceProfileName=made, RoleName=made)
    return made


def service(cloud: LocalCloud, which: str, keys: dict[str, str] | None = None) -> Any:
    return boto3.client(
        which, endpoint_url=cloud.endpoint_url, region_name=cloud.region, **(keys or cloud.credentials)
    )


def allow(cloud: LocalCloud, role: str, *statements: dict[str, Any]) -> None:
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    with closing(service(cloud, "iam")) as iam:
        iam.put_role_policy(RoleName=role, PolicyName="own", PolicyDocument=json.dumps(document))


def test_an_instance_may_do_what_its_role_allows_and_nothing_else(
    cloud: LocalCloud, ec2: Any, role: str
) -> None:
    [instance] = machines(ec2, 1, IamInstanceProfile={"Name": role})
    keys = credentials_of(cloud, instance["InstanceId"], role)
    with closing(service(cloud, "ec2", keys)) as own:
        with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:DescribeInstances"):
            own.describe_instances()
        allow(cloud, role, policy("ec2:Describe*"), policy("ec2:DescribeVpcs", effect="Deny"))
        assert own.describe_instances()["Reservations"]
        with pytest.raises(ClientError, match=r"ec2:DescribeVpcs"):
            own.describe_vpcs()
        with pytest.raises(ClientError, match=r"ec2:TerminateInstances"):
            own.terminate_instances(InstanceIds=[instance["InstanceId"]])
    last = cloud.control("GET", "calls")[-1]
    assert (last["role"], last["permissions"], last["code"]) == (
        role,
        ["ec2:TerminateInstances"],
        "UnauthorizedOperation",
    )


def test_credentials_of_nobody_are_still_refused(cloud: LocalCloud) -> None:
    keys = {"aws_access_key_id": "ASIASIM0000000000000", "aws_secret_access_key": "x"}
    with closing(service(cloud, "ec2", keys)) as own, pytest.raises(ClientError, match="AuthFailure"):
        own.describe_instances()


def test_what_ec2_does_on_behalf_of_a_fleet_is_needed_too() -> None:
    assert permissions_of("ec2", "CreateFleet", {"TagSpecification.1.ResourceType": "fleet"}) == (
        "ec2:CreateFleet",
        "ec2:RunInstances",
        "ec2:CreateTags",
    )
    assert permissions_of("s3", "GET /bucket", {}) == ()
