"""RequestSpotInstances as older tools use it: open requests, what they wait for, and how they end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.local import LocalCloud
from tests.infra.local.conftest import alive
from tests.infra.local.requests import IMAGE, code_of, describe, until

WANTED = {"ImageId": IMAGE, "InstanceType": "g6.xlarge", "Placement": {"AvailabilityZone": "us-east-1b"}}


def ordered(ec2: Any, count: int = 1, **more: Any) -> list[str]:
    answer = ec2.request_spot_instances(
        InstanceCount=count, LaunchSpecification=more.pop("LaunchSpecification", WANTED), **more
    )
    return [one["SpotInstanceRequestId"] for one in answer["SpotInstanceRequests"]]


def described(ec2: Any, ids: list[str]) -> list[dict[str, Any]]:
    return list(ec2.describe_spot_instance_requests(SpotInstanceRequestIds=ids)["SpotInstanceRequests"])


def statuses(ec2: Any, ids: list[str]) -> set[tuple[str, str]]:
    return {(one["State"], one["Status"]["Code"]) for one in described(ec2, ids)}


def test_requests_are_open_and_then_have_an_instance_each(ec2: Any) -> None:
    tags = [{"ResourceType": "spot-instances-request", "Tags": [{"Key": "a", "Value": "b"}]}]
    answer = ec2.request_spot_instances(
        InstanceCount=2, SpotPrice="0.9", LaunchSpecification=WANTED, TagSpecifications=tags
    )["SpotInstanceRequests"]
    assert {(one["State"], one["Status"]["Code"]) for one in answer} == {("open", "pending-evaluation")}
    ids = [one["SpotInstanceRequestId"] for one in answer]
    ec2.get_waiter("spot_instance_request_fulfilled").wait(SpotInstanceRequestIds=ids)
    found = described(ec2, ids)
    assert {(one["State"], one["SpotPrice"], one["Tags"][0]["Value"]) for one in found} == {
        ("active", "0.900000", "b")
    }
    instances = [describe(ec2, one["InstanceId"]) for one in found]
    assert [one["SpotInstanceRequestId"] for one in instances] == [
        one["SpotInstanceRequestId"] for one in found
    ]
    assert {(one["InstanceLifecycle"], one["Placement"]["AvailabilityZone"]) for one in instances} == {
        ("spot", "us-east-1b")
    }
    ec2.terminate_instances(InstanceIds=[one["InstanceId"] for one in found])
    assert statuses(ec2, ids) == {("closed", "instance-terminated-by-user")}


def test_nobody_need_describe_a_request_for_it_to_be_fulfilled(ec2: Any) -> None:
    ordered(ec2)
    until(lambda: len(alive(ec2)) == 1, "the instance")


@pytest.mark.parametrize(
    ("path", "missing", "there", "status"),
    [
        ("spot_prices", [{"price": 0.7}], [{"price": 0.3}], "price-too-low"),
        ("capacity", [{"machines": 0}], [], "capacity-not-available"),
    ],
)
def test_a_request_waits_until_there_is_what_it_asks_for(
    cloud: LocalCloud, ec2: Any, path: str, missing: Any, there: Any, status: str
) -> None:
    cloud.control("POST", path, missing)
    ids = ordered(ec2, SpotPrice="0.5")
    assert statuses(ec2, ids) == {("open", status)}
    cloud.control("POST", path, there)
    assert statuses(ec2, ids) == {("active", "fulfilled")}


def test_a_cancelled_request_gets_nothing(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "capacity", [{"machines": 0}])
    ids = ordered(ec2)
    answer = ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=ids)["CancelledSpotInstanceRequests"]
    assert answer == [{"SpotInstanceRequestId": ids[0], "State": "cancelled"}]
    cloud.control("POST", "capacity", [])
    assert statuses(ec2, ids) == {("cancelled", "canceled-before-fulfillment")}
    assert alive(ec2) == []


def test_a_request_ends_with_its_time(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "capacity", [{"machines": 0}])
    ids = ordered(ec2, ValidUntil=datetime.now(UTC) - timedelta(days=1))
    assert statuses(ec2, ids) == {("cancelled", "schedule-expired")}


def test_the_same_token_orders_once(ec2: Any) -> None:
    assert ordered(ec2, ClientToken="once") == ordered(ec2, ClientToken="once")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"LaunchSpecification": {**WANTED, "ImageId": "ami-0123456789abcdef0"}}, "InvalidAMIID.NotFound"),
        ({"LaunchSpecification": {**WANTED, "InstanceType": "g99.xlarge"}}, "InvalidParameterValue"),
        ({"LaunchSpecification": {**WANTED, "KeyName": "none"}}, "InvalidKeyPair.NotFound"),
        ({"SpotPrice": "0"}, "InvalidParameterValue"),
        ({"Type": "persistent"}, "UnsupportedOperation"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
    ids=["image", "type", "key", "price", "persistent", "dry run"],
)
def test_a_request_that_cannot_be_is_refused_at_once(ec2: Any, more: dict[str, Any], code: str) -> None:
    assert code_of(lambda: ordered(ec2, **more)) == code


def test_a_quota_counts_for_requests_too(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "quotas", {"L-3819A6DF": 4})
    assert code_of(lambda: ordered(ec2, 2)) == "MaxSpotInstanceCountExceeded"


def test_an_unknown_request_is_an_error(ec2: Any) -> None:
    assert code_of(lambda: described(ec2, ["sir-00000000"])) == "InvalidSpotInstanceRequestID.NotFound"
