"""Spot: a request object for each instance, prices that follow the scenario, scores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from infra.local import LocalCloud
from tests.infra.local.requests import ZONE, code_of, describe, fleet, ids, machine, wait_for

AS_SPOT = {"InstanceMarketOptions": {"MarketType": "spot"}}


def test_every_spot_instance_has_a_request_that_closes_with_it(ec2: Any) -> None:
    tags = [{"ResourceType": "spot-instances-request", "Tags": [{"Key": "who", "Value": "me"}]}]
    made = machine(ec2, **AS_SPOT, TagSpecifications=tags)
    found = describe(ec2, made["InstanceId"])
    assert found["InstanceLifecycle"] == "spot"
    filters = [{"Name": "tag:who", "Values": ["me"]}, {"Name": "instance-id", "Values": [made["InstanceId"]]}]
    request = ec2.describe_spot_instance_requests(Filters=filters)["SpotInstanceRequests"][0]
    assert request["SpotInstanceRequestId"] == found["SpotInstanceRequestId"]
    assert (request["State"], request["Type"], request["Status"]["Code"]) == (
        "active",
        "one-time",
        "fulfilled",
    )
    assert request["LaunchSpecification"]["InstanceType"] == made["InstanceType"]
    ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
    after = ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[request["SpotInstanceRequestId"]])
    assert after["SpotInstanceRequests"][0]["State"] == "closed"
    assert after["SpotInstanceRequests"][0]["Status"]["Code"] == "instance-terminated-by-user"


def test_instances_of_a_fleet_have_requests_too(ec2: Any) -> None:
    answer = fleet(ec2, [{"InstanceType": "g6.xlarge", "AvailabilityZone": ZONE}], 2)
    filters = [{"Name": "instance-id", "Values": ids(answer)}, {"Name": "state", "Values": ["active"]}]
    assert len(ec2.describe_spot_instance_requests(Filters=filters)["SpotInstanceRequests"]) == 2


def test_cancelling_a_request_leaves_its_instance_running(ec2: Any) -> None:
    made = machine(ec2, **AS_SPOT)
    request = describe(ec2, made["InstanceId"])["SpotInstanceRequestId"]
    answer = ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request])
    assert answer["CancelledSpotInstanceRequests"] == [
        {"SpotInstanceRequestId": request, "State": "cancelled"}
    ]
    wait_for(ec2, made["InstanceId"], "running")
    missing = "sir-00000000"
    assert (
        code_of(lambda: ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[missing]))
        == "InvalidSpotInstanceRequestID.NotFound"
    )


def test_a_one_time_spot_instance_cannot_be_stopped(ec2: Any) -> None:
    made = machine(ec2, **AS_SPOT)
    wait_for(ec2, made["InstanceId"], "running")
    assert code_of(lambda: ec2.stop_instances(InstanceIds=[made["InstanceId"]])) == "UnsupportedOperation"


def test_the_latest_price_is_the_one_that_is_asked(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "spot_prices", [{"instance_type": "g6.xlarge", "zone": ZONE, "price": 0.31}])
    rows = ec2.describe_spot_price_history(
        InstanceTypes=["g6.xlarge"],
        ProductDescriptions=["Linux/UNIX"],
        StartTime=datetime.now(UTC),
    )["SpotPriceHistory"]
    assert len(rows) == len({row["AvailabilityZone"] for row in rows})
    prices = {row["AvailabilityZone"]: float(row["SpotPrice"]) for row in rows}
    assert prices[ZONE] == 0.31
    assert all(0.3 < price < 0.5 for price in prices.values())


def test_the_history_goes_back_and_pages_through(ec2: Any) -> None:
    asked = {
        "InstanceTypes": ["g6.xlarge"],
        "Filters": [{"Name": "availability-zone", "Values": [ZONE]}],
        "StartTime": datetime.now(UTC) - timedelta(days=10),
    }
    paginator = ec2.get_paginator("describe_spot_price_history")
    pages = list(paginator.paginate(**asked, PaginationConfig={"PageSize": 7}))
    assert len(pages) > 2
    moments = [row["Timestamp"] for page in pages for row in page["SpotPriceHistory"]]
    assert moments == sorted(moments, reverse=True)
    assert len(moments) == len(set(moments))
    assert moments[-1] <= asked["StartTime"]


def test_scores_follow_the_capacity_left(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "capacity", [{"instance_type": "g6.xlarge", "machines": 0}])
    asked = {"TargetCapacity": 4, "RegionNames": ["us-east-1"], "SingleAvailabilityZone": True}
    empty = ec2.get_spot_placement_scores(InstanceTypes=["g6.xlarge"], **asked)["SpotPlacementScores"]
    assert {row["Score"] for row in empty} == {1}
    full = ec2.get_spot_placement_scores(InstanceTypes=["g5.xlarge"], **asked)["SpotPlacementScores"]
    assert {row["Score"] for row in full} == {9}
    assert all(row["AvailabilityZoneId"].startswith("use1-az") for row in full)
