"""Faults of the HTTP layer, as stock boto3 meets them, and the call log that tells what happened."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from infra.errors import SetupError
from infra.local import LocalCloud
from tests.infra.local.conftest import client, closed
from tests.infra.local.requests import code_of, name, template


@pytest.fixture(scope="module")
def patient(states_cloud: LocalCloud) -> Iterator[Any]:
    """A client that retries as boto3 does by default in its standard mode."""
    yield from closed(
        client(states_cloud, config=Config(retries={"mode": "standard", "total_max_attempts": 3}))
    )


@pytest.fixture
def calls(cloud: LocalCloud) -> Any:
    """The log, from the first call after this."""
    cloud.control("DELETE", "calls")
    return lambda: cloud.control("GET", "calls")


def groups(ec2: Any, called: str) -> list[str]:
    filters = [{"Name": "group-name", "Values": [called]}]
    return [group["GroupId"] for group in ec2.describe_security_groups(Filters=filters)["SecurityGroups"]]


def test_an_error_before_the_work_changes_nothing(cloud: LocalCloud, ec2: Any, calls: Any) -> None:
    called = name()
    fault = {"action": "CreateSecurityGroup", "code": "UnauthorizedOperation", "message": "no"}
    cloud.control("POST", "faults", [fault])
    with pytest.raises(ClientError, match="UnauthorizedOperation") as refused:
        ec2.create_security_group(GroupName=called, Description="test")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert groups(ec2, called) == []
    assert calls()[0]["fault"] == "error"
    assert cloud.control("GET", "faults") == []


def test_codes_of_the_server_come_with_a_status_that_is_retried(cloud: LocalCloud, patient: Any) -> None:
    cloud.control("POST", "faults", [{"action": "DescribeVpcs", "code": "InternalError", "times": 2}])
    assert len(patient.describe_vpcs()["Vpcs"]) == 1
    cloud.control("POST", "faults", [{"action": "DescribeVpcs", "code": "InternalError", "times": 3}])
    assert code_of(patient.describe_vpcs) == "InternalError"


def test_a_lost_response_is_one_whose_work_was_done(cloud: LocalCloud, ec2: Any, calls: Any) -> None:
    called = name()
    cloud.control("POST", "faults", [{"action": "CreateSecurityGroup", "kind": "lost"}])
    with pytest.raises(ConnectionClosedError):
        ec2.create_security_group(GroupName=called, Description="test")
    assert len(groups(ec2, called)) == 1
    assert (calls()[0]["fault"], calls()[0]["status"]) == ("lost", 200)


def test_a_retry_after_a_lost_response_is_safe_with_a_token_and_shown_without(
    cloud: LocalCloud, patient: Any
) -> None:
    of, called = template(patient), name()
    cloud.control("POST", "faults", [{"action": "CreateVolume", "kind": "lost"}])
    made = patient.create_volume(Size=8, AvailabilityZone="us-east-1a", TagSpecifications=[
        {"ResourceType": "volume", "Tags": [{"Key": "test", "Value": called}]}
    ])  # fmt: skip
    found = patient.describe_volumes(Filters=[{"Name": "tag:test", "Values": [called]}])["Volumes"]
    assert [one["VolumeId"] for one in found] == [made["VolumeId"]]
    cloud.control("POST", "faults", [{"action": "CreateSecurityGroup", "kind": "lost"}])
    duplicate = code_of(lambda: patient.create_security_group(GroupName=called, Description="test"))
    assert duplicate == "InvalidGroup.Duplicate"
    patient.delete_launch_template(LaunchTemplateId=of)


def test_a_reset_comes_before_the_work(cloud: LocalCloud, ec2: Any, calls: Any) -> None:
    called = name()
    cloud.control("POST", "faults", [{"action": "CreateSecurityGroup", "kind": "reset"}])
    with pytest.raises(ConnectionClosedError):
        ec2.create_security_group(GroupName=called, Description="test")
    assert groups(ec2, called) == []
    assert (calls()[0]["fault"], calls()[0]["status"]) == ("reset", 0)


def test_throttling_has_the_code_and_status_of_ec2(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "faults", [{"action": "Describe*", "kind": "throttle"}])
    with pytest.raises(ClientError, match="RequestLimitExceeded") as refused:
        ec2.describe_instances()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503


def test_a_delay_is_a_delay_and_outlasts_an_impatient_client(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "faults", [{"action": "DescribeVpcs", "kind": "delay", "seconds": 0.3, "times": 2}])
    began = time.monotonic()
    ec2.describe_vpcs()
    assert time.monotonic() - began >= 0.3
    hasty = client(cloud, config=Config(read_timeout=0.1, retries={"total_max_attempts": 1}))
    with pytest.raises(ReadTimeoutError):
        hasty.describe_vpcs()
    hasty.close()


def test_a_fault_can_be_set_for_the_nth_call_whatever_it_is(cloud: LocalCloud, ec2: Any, calls: Any) -> None:
    cloud.control("POST", "faults", [{"index": 3, "code": "Unavailable"}])
    ec2.describe_vpcs()
    ec2.describe_subnets()
    assert code_of(ec2.describe_instances) == "Unavailable"
    ec2.describe_instances()
    assert [(call["index"], call["action"], call["status"]) for call in calls()] == [
        (1, "DescribeVpcs", 200),
        (2, "DescribeSubnets", 200),
        (3, "DescribeInstances", 503),
        (4, "DescribeInstances", 200),
    ]


def test_the_log_tells_reading_from_changing_and_has_the_parameters(
    cloud: LocalCloud, ec2: Any, calls: Any
) -> None:
    called = name()
    ec2.describe_vpcs(VpcIds=[ec2.describe_vpcs()["Vpcs"][0]["VpcId"]])
    assert code_of(lambda: ec2.create_security_group(GroupName=called, Description="d", DryRun=True))
    ssm = client(cloud, "ssm")
    ssm.get_parameters(
        Names=["/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id"]
    )
    ssm.close()
    assert not any(call["changes"] for call in calls())
    ec2.create_security_group(GroupName=called, Description="d")
    last = calls()[-1]
    assert last["changes"]
    assert (last["service"], last["region"]) == ("ec2", "us-east-1")
    assert last["parameters"]["GroupName"] == called


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("faults", [{"kind": "explosion"}], "kind is one of error, lost"),
        ("faults", [{"acton": "RunInstances"}], "has no 'acton'"),
        ("faults", [{"kind": "signal"}], "needs a pid"),
        ("capacity", [{"instance_type": "g6.xlarge"}], "machines"),
        ("capacity", {"machines": 1}, "a list of CapacityRule"),
        ("spot_prices", [{"price": -1}], "more than 0"),
        ("quotas", {"L-1": 4}, "no quota 'L-1'"),
        ("scenario", {"hosts": "none"}, "'hosts' cannot be changed here"),
        ("interrupt/i-0123456789abcdef0", None, "does not exist"),
        ("nonsense", None, "there is no POST nonsense"),
    ],
)
def test_a_control_call_that_cannot_be_is_a_sentence(
    cloud: LocalCloud, path: str, body: Any, says: str
) -> None:
    with pytest.raises(SetupError, match=says):
        cloud.control("POST", path, body)


def test_any_other_access_key_is_refused_as_ec2_does(cloud: LocalCloud) -> None:
    import boto3

    def stranger(service: str) -> Any:
        return boto3.client(
            service, endpoint_url=cloud.endpoint_url, region_name="us-east-1",
            aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_secret_access_key="x",
        )  # fmt: skip

    ec2, sts = stranger("ec2"), stranger("sts")
    assert code_of(ec2.describe_instances) == "AuthFailure"
    assert code_of(sts.get_caller_identity) == "InvalidClientTokenId"
    ec2.close()
    sts.close()


def test_buckets_work_and_reading_them_is_reading(cloud: LocalCloud, calls: Any) -> None:
    s3 = client(
        cloud, "s3", config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    )
    bucket = name()
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"content")
    cloud.control("DELETE", "calls")
    assert s3.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"content"
    address = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a/b"})
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert answer.read() == b"content"
    assert [(call["service"], call["changes"]) for call in calls()] == [("s3", False), ("s3", False)]
    s3.close()


def test_what_the_simulation_cannot_do_says_so(ec2: Any) -> None:
    assert code_of(ec2.describe_capacity_reservations) == "InvalidAction"
