"""Security groups that are in use, and blocks of addresses that never meet."""

from __future__ import annotations

import ipaddress
from typing import Any

from infra.local import LocalCloud
from tests.infra.local.conftest import client
from tests.infra.local.requests import code_of, machine, name, wait_for


def group(ec2: Any) -> str:
    return str(ec2.create_security_group(GroupName=name(), Description="test")["GroupId"])


def allow_from(ec2: Any, group_id: str, source: str) -> None:
    ec2.authorize_security_group_ingress(
        GroupId=group_id, IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": source}]}]
    )


def test_a_group_cannot_be_deleted_until_its_last_instance_is_terminated(ec2: Any) -> None:
    one = group(ec2)
    made = machine(ec2, SecurityGroupIds=[one])
    assert code_of(lambda: ec2.delete_security_group(GroupId=one)) == "DependencyViolation"
    ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
    wait_for(ec2, made["InstanceId"], "terminated")
    ec2.delete_security_group(GroupId=one)


def test_a_group_that_another_refers_to_cannot_be_deleted_but_one_that_refers_to_itself_can(ec2: Any) -> None:
    one, other = group(ec2), group(ec2)
    allow_from(ec2, one, one)
    allow_from(ec2, other, one)
    assert code_of(lambda: ec2.delete_security_group(GroupId=one)) == "DependencyViolation"
    ec2.delete_security_group(GroupId=other)
    ec2.delete_security_group(GroupId=one)


def test_the_default_group_cannot_be_deleted(ec2: Any) -> None:
    default = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"][0]["GroupId"]
    assert code_of(lambda: ec2.delete_security_group(GroupId=default)) == "CannotDelete"


def test_each_region_has_a_block_of_loopback_addresses_of_its_own(cloud: LocalCloud, ec2: Any) -> None:
    other = client(cloud, region="us-west-2")
    blocks = [ipaddress.ip_network(one.describe_vpcs()["Vpcs"][0]["CidrBlock"]) for one in (ec2, other)]
    other.close()
    assert all(block.is_loopback and block.prefixlen == 16 for block in blocks)
    assert not blocks[0].overlaps(blocks[1])


def test_two_clouds_have_different_blocks(cloud: LocalCloud, ec2: Any, hosts_ec2: Any) -> None:
    blocks = [one.describe_vpcs()["Vpcs"][0]["CidrBlock"] for one in (ec2, hosts_ec2)]
    assert blocks[0] != blocks[1]


def test_an_elastic_address_leads_nowhere(ec2: Any) -> None:
    address = ec2.allocate_address(Domain="vpc")["PublicIp"]
    assert address.startswith(("203.0.113.", "198.18.", "198.19."))


def test_the_interface_of_an_instance_goes_with_it(ec2: Any) -> None:
    made = machine(ec2)
    interface = made["NetworkInterfaces"][0]["NetworkInterfaceId"]
    ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
    wait_for(ec2, made["InstanceId"], "terminated")
    found = code_of(lambda: ec2.describe_network_interfaces(NetworkInterfaceIds=[interface]))
    assert found == "InvalidNetworkInterfaceID.NotFound"
