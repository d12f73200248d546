"""The metadata service of namespace hosts at its own address: tokens, hop limit, tags, the notice."""

from __future__ import annotations

import json

import pytest

from infra.node.ssh import SSHHost
from tests.infra.local.hosts.namespaces.rig import Rig, said
from tests.infra.local.requests import describe, until

pytestmark = pytest.mark.rig

SERVICE = "http://169.254.169.254/latest"
TOKEN = f"$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {SERVICE}/api/token)"
CONTAINER = """
ip link add toc type veth peer name eth0 netns {pid}
ip addr add 172.31.255.1/30 dev toc; ip link set toc up
nsenter --net --target={pid} sh -c 'ip addr add 172.31.255.2/30 dev eth0; ip link set eth0 up
    ip route add default via 172.31.255.1'
echo 1 >/proc/sys/net/ipv4/ip_forward
nft 'add table ip nat; add chain ip nat out {{ type nat hook postrouting priority srcnat; }}
    add rule ip nat out ip saddr 172.31.255.2 masquerade'
"""


@pytest.fixture(scope="module")
def host(rig: Rig, pair: list[str]) -> SSHHost:
    return rig.host(pair[0])


def asked(host: SSHHost, path: str) -> str:
    return said(host, f'curl -sf -H "X-aws-ec2-metadata-token: {TOKEN}" {SERVICE}/{path}')


def test_without_a_token_it_answers_401(host: SSHHost) -> None:
    assert said(host, f"curl -s -o /dev/null -w '%{{http_code}}' {SERVICE}/meta-data/instance-id") == "401"


def test_with_a_token_it_says_who_asks(rig: Rig, pair: list[str], host: SSHHost) -> None:
    facts = describe(rig.ec2, pair[0])
    assert asked(host, "meta-data/instance-id") == pair[0]
    assert asked(host, "meta-data/local-ipv4") == facts["PrivateIpAddress"]
    assert asked(host, "meta-data/public-ipv4") == facts["PublicIpAddress"]
    assert asked(host, "meta-data/tags/instance/role") == "worker"
    assert asked(host, "user-data").startswith("#cloud-config")
    assert asked(rig.host(pair[1]), "meta-data/instance-id") == pair[1]


def test_a_token_of_another_host_is_refused(rig: Rig, pair: list[str], host: SSHHost) -> None:
    token = said(rig.host(pair[1]), f"echo {TOKEN}")
    header = f"-H 'X-aws-ec2-metadata-token: {token}'"
    assert said(host, f"curl -s -o /dev/null -w '%{{http_code}}' {header} {SERVICE}/meta-data/") == "401"


def test_a_spot_instance_finds_its_notice(rig: Rig) -> None:
    [spot] = rig.launch(InstanceMarketOptions={"MarketType": "spot"})
    host = rig.host(spot)
    code = f'curl -s -o /dev/null -w "%{{http_code}}" -H "X-aws-ec2-metadata-token: {TOKEN}" '
    assert said(host, f"{code} {SERVICE}/meta-data/spot/instance-action") == "404"
    rig.cloud.control("POST", f"interrupt/{spot}", {"notice_seconds": 3})
    assert json.loads(asked(host, "meta-data/spot/instance-action"))["action"] == "terminate"
    until(lambda: rig.state(spot) == "terminated", "the instance to be reclaimed")


@pytest.mark.parametrize(("hops", "arrives"), [(1, False), (2, True)])
def test_a_token_reaches_a_container_only_with_a_second_hop(rig: Rig, hops: int, arrives: bool) -> None:
    [instance] = rig.launch(MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": hops})
    host = rig.host(instance)
    said(
        host,
        "nohup sudo unshare --net sh -c 'echo $$ >/tmp/container; exec sleep 60' >&- 2>&- <&- &",
    )
    pid = until(lambda: said(host, "cat /tmp/container 2>/dev/null || true"), "the container")
    host.run("sudo sh -e", stdin=CONTAINER.format(pid=pid), timeout_seconds=20)
    put = f"curl -s -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {SERVICE}/api/token"
    assert bool(said(host, f"sudo nsenter --net --target={pid} {put} || true")) == arrives
    rig.end(instance)
