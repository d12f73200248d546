"""Where nodes can go, before anything is bought: subnets with addresses, VPCs with a way to the internet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from infra import cluster
from infra.cluster import Cloud
from infra.ec2 import network
from infra.ec2.network import Subnet
from infra.ec2.region import Region
from infra.errors import UsageError
from infra.events import ignore
from infra.plan import plan
from infra.spec import ClusterSpec, Network, Purchase


def subnet(zone: str, free: int) -> Subnet:
    return Subnet(id=f"subnet-{zone}", zone=zone, vpc_id="vpc-1", free_addresses=free)


@pytest.mark.parametrize(
    ("free", "workers", "spread", "is_enough"),
    [
        ((0, 4), 3, False, True),
        ((4, 0, 0), 3, False, True),
        ((3, 1), 3, False, True),
        ((3, 0), 3, False, False),
        ((2, 2), 3, False, False),
        ((2, 2), 3, True, True),
        ((2, 1), 3, True, False),
        ((-3, 4), 3, True, True),
    ],
)
def test_there_is_room_where_one_subnet_or_with_spread_all_have_it(
    free: tuple[int, ...], workers: int, spread: bool, is_enough: bool
) -> None:
    found = [subnet(f"z{number}", count) for number, count in enumerate(free)]
    if is_enough:
        network.require_room(found, workers, spread=spread)
        return
    with pytest.raises(UsageError, match=r"subnet-z0 in z0 has \d"):
        network.require_room(found, workers, spread=spread)


@pytest.fixture
def vpc(simulated: Cloud) -> Iterator[str]:
    """A VPC of one's own with a small subnet in one zone and a large one in another, and no gateway."""
    region = simulated.region
    made = region.change("create_vpc", CidrBlock="10.77.0.0/16")
    assert made is not None
    name = made["Vpc"]["VpcId"]
    for zone, block in (("us-east-1a", "10.77.1.0/28"), ("us-east-1b", "10.77.2.0/24")):
        region.change("create_subnet", VpcId=name, CidrBlock=block, AvailabilityZone=zone)
    yield name
    for part in region.read("describe_subnets", Filters=[{"Name": "vpc-id", "Values": [name]}])["Subnets"]:
        region.change("delete_subnet", SubnetId=part["SubnetId"])
    for gateway in region.read("describe_internet_gateways")["InternetGateways"]:
        if any(one["VpcId"] == name for one in gateway["Attachments"]):
            region.change(
                "detach_internet_gateway", InternetGatewayId=gateway["InternetGatewayId"], VpcId=name
            )
            region.change("delete_internet_gateway", InternetGatewayId=gateway["InternetGatewayId"])
    region.change("delete_vpc", VpcId=name)


def give_a_gateway(region: Region, vpc: str) -> None:
    gateway = region.change("create_internet_gateway")
    assert gateway is not None
    made = gateway["InternetGateway"]["InternetGatewayId"]
    region.change("attach_internet_gateway", InternetGatewayId=made, VpcId=vpc)
    tables = region.read("describe_route_tables", Filters=[{"Name": "vpc-id", "Values": [vpc]}])
    region.change(
        "create_route",
        RouteTableId=tables["RouteTables"][0]["RouteTableId"],
        DestinationCidrBlock="0.0.0.0/0",
        GatewayId=made,
    )


def test_a_vpc_without_a_way_out_is_a_problem_and_one_with_a_gateway_is_none(
    simulated: Cloud, simulation: Any, spec: ClusterSpec, vpc: str
) -> None:
    wanted = replace(spec, network=Network(vpc_id=vpc))
    found = plan(simulated.region, wanted, lambda: "198.51.100.7/32")
    assert [str(one).partition(" has ")[2][:26] for one in found.problems] == ["no way to the internet, fr"]
    simulation.control("DELETE", "calls")
    with pytest.raises(UsageError, match="no way to the internet"):
        cluster.launch(simulated, wanted, ignore)
    assert not [call for call in simulation.control("GET", "calls") if call["changes"]]
    give_a_gateway(simulated.region, vpc)
    assert not plan(simulated.region, wanted, lambda: "198.51.100.7/32").problems


def test_a_small_subnet_in_one_zone_is_no_problem_where_another_has_room(
    simulated: Cloud, spec: ClusterSpec, vpc: str
) -> None:
    give_a_gateway(simulated.region, vpc)
    wanted = replace(spec, workers=14, network=Network(vpc_id=vpc))  # a /28 has 11 addresses
    assert not plan(simulated.region, wanted, lambda: "198.51.100.7/32").problems
    made = cluster.launch(simulated, wanted, ignore)
    try:
        assert {node.zone for node in made.workers} == {"us-east-1b"}
        small = ip_network("10.77.2.0/24")
        assert all(ip_network(f"{node.private_ip}/32").subnet_of(small) for node in made.workers)
    finally:
        cluster.destroy(simulated, spec.name, ignore)
    many = replace(wanted, workers=300, purchase=Purchase(spread=True))
    problems = plan(simulated.region, many, lambda: "198.51.100.7/32").problems
    assert any("No subnet has the free addresses for 300 workers" in str(one) for one in problems)


def test_a_zone_without_a_way_out_is_left_to_others(simulated: Cloud, spec: ClusterSpec, vpc: str) -> None:
    region = simulated.region
    give_a_gateway(region, vpc)
    table = region.change("create_route_table", VpcId=vpc)
    assert table is not None
    parts = region.read("describe_subnets", Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
    cut = next(one["SubnetId"] for one in parts if one["AvailabilityZone"] == "us-east-1b")
    linked = region.change(
        "associate_route_table", RouteTableId=table["RouteTable"]["RouteTableId"], SubnetId=cut
    )
    assert linked is not None
    try:
        found = network.subnets(region, replace(spec, network=Network(vpc_id=vpc)))
        assert [one.zone for one in found] == ["us-east-1a"]
        (named,) = network.subnets(region, replace(spec, network=Network(subnet_id=cut)))
        assert "has no way to the internet" in named.trouble
    finally:
        region.change("disassociate_route_table", AssociationId=linked["AssociationId"])
        region.change("delete_route_table", RouteTableId=table["RouteTable"]["RouteTableId"])
