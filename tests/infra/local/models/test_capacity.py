"""Capacity, prices and quotas: what is missing is refused in EC2's words, and comes back when machines go."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.local import LocalCloud
from tests.infra.local.conftest import client
from tests.infra.local.requests import ZONE, code_of, fleet, machine, machines, wait_for

IN_ZONE = {"Placement": {"AvailabilityZone": ZONE}}
AS_SPOT = {"InstanceMarketOptions": {"MarketType": "spot"}}


def test_missing_capacity_is_http_500_so_that_sdks_retry_it_as_they_do_with_ec2(
    cloud: LocalCloud, ec2: Any
) -> None:
    cloud.control("POST", "capacity", [{"zone": ZONE, "machines": 0}])
    with pytest.raises(ClientError) as refused:
        machine(ec2, **IN_ZONE)
    assert refused.value.response["Error"]["Code"] == "InsufficientInstanceCapacity"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500


def test_capacity_is_counted_and_comes_back_with_terminated_machines(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "capacity", [{"instance_type": "m6i.large", "zone": ZONE, "machines": 1}])
    first = machine(ec2, **IN_ZONE)
    assert code_of(lambda: machine(ec2, **IN_ZONE)) == "InsufficientInstanceCapacity"
    ec2.terminate_instances(InstanceIds=[first["InstanceId"]])
    wait_for(ec2, first["InstanceId"], "terminated")
    assert machine(ec2, **IN_ZONE)["InstanceId"] != first["InstanceId"]


def test_spot_and_on_demand_are_pools_of_their_own(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "capacity", [{"purchase": "spot", "machines": 0}])
    assert code_of(lambda: machine(ec2, **IN_ZONE, **AS_SPOT)) == "InsufficientInstanceCapacity"
    machine(ec2, **IN_ZONE)


def test_run_instances_delivers_between_minimum_and_maximum(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "capacity", [{"machines": 2}])
    assert len(machines(ec2, 3, MinCount=1, **IN_ZONE)) == 2
    assert code_of(lambda: machines(ec2, 3, MinCount=2, **IN_ZONE)) == "InsufficientInstanceCapacity"


def test_a_spot_price_above_the_maximum_is_too_low_a_maximum(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "spot_prices", [{"instance_type": "m6i.large", "price": 0.05}])

    def bid(price: str) -> str:
        options = {"MarketType": "spot", "SpotOptions": {"MaxPrice": price}}
        return code_of(lambda: machine(ec2, InstanceMarketOptions=options))

    assert bid("0.04") == "SpotMaxPriceTooLow"
    assert bid("0.0005") == "InvalidParameterValue"
    assert bid("0.06") == ""


@pytest.mark.parametrize(
    ("code", "instance_type", "purchase", "refusal"),
    [
        ("L-3819A6DF", "g6.xlarge", "spot", "MaxSpotInstanceCountExceeded"),
        ("L-DB2E81BA", "g6.xlarge", "on-demand", "VcpuLimitExceeded"),
        ("L-34B43A08", "m6i.xlarge", "spot", "MaxSpotInstanceCountExceeded"),
        ("L-1216C47A", "m6i.xlarge", "on-demand", "VcpuLimitExceeded"),
    ],
)
def test_a_quota_counts_vcpus_of_its_families_and_purchase(
    cloud: LocalCloud, ec2: Any, code: str, instance_type: str, purchase: str, refusal: str
) -> None:
    cloud.control("POST", "quotas", {code: 8})
    wanted = {"InstanceType": instance_type, **(AS_SPOT if purchase == "spot" else {})}
    assert code_of(lambda: machines(ec2, 3, **wanted)) == refusal
    machines(ec2, 2, **wanted)
    assert code_of(lambda: machine(ec2, **wanted)) == refusal
    other = {"InstanceType": instance_type, **({} if purchase == "spot" else AS_SPOT)}
    machine(ec2, **other)


def test_a_fleet_says_which_quota_code_stopped_it(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "quotas", {"L-3819A6DF": 0})
    answer = fleet(ec2, [{"InstanceType": "g6.xlarge", "AvailabilityZone": ZONE}], 1)
    assert answer["Instances"] == []
    assert [error["ErrorCode"] for error in answer["Errors"]] == ["MaxSpotInstanceCountExceeded"]


def test_service_quotas_tells_what_is_enforced(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "quotas", {"L-3819A6DF": 48})
    quotas = client(cloud, "service-quotas")
    found = quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-3819A6DF")["Quota"]
    assert (found["Value"], found["QuotaName"]) == (48.0, "All G and VT Spot Instance Requests")
    listed = quotas.list_service_quotas(ServiceCode="ec2")["Quotas"]
    assert {"L-DB2E81BA", "L-34B43A08", "L-1216C47A"} <= {quota["QuotaCode"] for quota in listed}
    with pytest.raises(ClientError, match="NoSuchResourceException"):
        quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-00000000")
    quotas.close()


def test_pricing_knows_the_prices_that_spot_prices_follow(cloud: LocalCloud) -> None:
    pricing = client(cloud, "pricing")

    def dollars(instance_type: str, **more: str) -> list[float]:
        wanted = {
            "instanceType": instance_type,
            "operatingSystem": "Linux",
            "regionCode": "us-east-1",
            **more,
        }
        filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()]
        found = pricing.get_products(ServiceCode="AmazonEC2", Filters=filters)["PriceList"]
        terms = [term for one in found for term in json.loads(one)["terms"]["OnDemand"].values()]
        dimensions = [one for term in terms for one in term["priceDimensions"].values()]
        return [float(one["pricePerUnit"]["USD"]) for one in dimensions]

    assert dollars("g6.xlarge") == [0.8048]
    assert dollars("g6.xlarge", operatingSystem="Windows") == []
    assert dollars("g2.8xlarge") == []
    paginator = pricing.get_paginator("get_products")
    assert len(list(paginator.paginate(ServiceCode="AmazonEC2", PaginationConfig={"PageSize": 100}))) > 5
    pricing.close()
