"""The network of namespace hosts: security groups that drop packets, public addresses, and nothing beyond."""

from __future__ import annotations

import socket
import threading

import pytest

from infra.errors import HostUnreachable
from infra.node.ssh import SSHHost
from tests.infra.local.hosts.namespaces.rig import Rig, allow, group_of, refuse, said
from tests.infra.local.requests import describe, until

pytestmark = pytest.mark.rig

CONNECT = """python3 - <<'END'
import socket
try:
    with socket.create_connection(("{address}", {port}), 1.5) as connection:
        print(connection.recv(100).decode())
except OSError as error:
    print(type(error).__name__)
END"""
SERVE = """nohup python3 -c '
import socket
listener = socket.create_server(("", {port}))
while True:
    connection, peer = listener.accept()
    connection.sendall(peer[0].encode())
    connection.close()
' >/dev/null 2>&1 </dev/null &"""


@pytest.fixture(scope="module")
def hosts(rig: Rig, pair: list[str]) -> list[SSHHost]:
    return [rig.host(one) for one in pair]


def reached(host: SSHHost, address: str, port: int) -> str:
    """What the other side said of the caller's address, or the name of the error."""
    return said(host, CONNECT.format(address=address, port=port))


def private(rig: Rig, instance_id: str) -> str:
    return str(describe(rig.ec2, instance_id)["PrivateIpAddress"])


def public(rig: Rig, instance_id: str) -> str:
    return str(describe(rig.ec2, instance_id)["PublicIpAddress"])


def test_a_port_between_two_hosts_is_closed_until_the_group_opens_it(
    rig: Rig, pair: list[str], hosts: list[SSHHost]
) -> None:
    here, there = hosts
    target = private(rig, pair[1])
    said(there, SERVE.format(port=9000))
    until(lambda: "9000" in said(there, "ss -ltn"), "the port to be listened on")
    assert reached(here, target, 9000) == "TimeoutError"
    allow(rig, rig.group, 9000, other=rig.group)
    until(lambda: reached(here, target, 9000) == private(rig, pair[0]), "the port to be open")
    counted = said(there, "sudo nft list chain inet security_groups input")
    assert f'dport 9000-9000 counter packets 1 bytes 60 accept comment "{rig.group}"' in counted
    refuse(rig, rig.group, 9000, other=rig.group)
    until(lambda: reached(here, target, 9000) == "TimeoutError", "the port to be closed again")


def test_a_public_address_leads_to_the_host_and_shows_the_callers_own(
    rig: Rig, pair: list[str], hosts: list[SSHHost]
) -> None:
    here, there = hosts
    said(there, SERVE.format(port=9001))
    allow(rig, rig.group, 9001, cidr=f"{public(rig, pair[0])}/32")
    until(lambda: reached(here, public(rig, pair[1]), 9001) == public(rig, pair[0]), "an answer")
    assert reached(here, private(rig, pair[1]), 9001) == "TimeoutError"  # the rule is of the public address


@pytest.mark.slow  # silence is told apart only after a while
def test_an_instance_moved_to_another_group_obeys_that_one(rig: Rig, pair: list[str]) -> None:
    closed = group_of(rig)
    refuse(rig, closed, 22, cidr=rig.cloud.caller_address)
    rig.ec2.modify_instance_attribute(InstanceId=pair[1], Groups=[closed])
    try:
        until(lambda: not opens(public(rig, pair[1]), 22), "ssh to be refused")
        with pytest.raises(HostUnreachable):
            rig.host(pair[1]).run("true", timeout_seconds=5)
    finally:
        rig.ec2.modify_instance_attribute(InstanceId=pair[1], Groups=[rig.group])
    until(lambda: opens(public(rig, pair[1]), 22), "ssh to be let in again")


def test_a_group_without_egress_lets_nothing_out_but_answers(rig: Rig, pair: list[str]) -> None:
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    group = group_of(rig)
    [silent] = rig.launch(SecurityGroupIds=[group])
    allow(rig, rig.group, 22, other=group)
    host = rig.host(silent)
    until(lambda: reached(host, private(rig, pair[0]), 22).startswith("SSH-"), "the other host to answer")
    rig.ec2.revoke_security_group_egress(GroupId=group, IpPermissions=everything)
    until(lambda: reached(host, private(rig, pair[0]), 22) == "TimeoutError", "egress to end")
    refuse(rig, rig.group, 22, other=group)
    rig.end(silent)


def test_nothing_of_this_machine_and_nothing_beyond_is_reached(rig: Rig, hosts: list[SSHHost]) -> None:
    caller = rig.cloud.caller_address.partition("/")[0]
    with socket.create_server(("", 0)) as listener:
        threading.Thread(target=greet, args=(listener,), daemon=True).start()
        port = listener.getsockname()[1]
        assert opens(caller, port)  # from here it is open
        assert reached(hosts[0], caller, port) == "TimeoutError"
        assert reached(hosts[0], "192.0.2.77", port) == "OSError"  # network is unreachable


def greet(listener: socket.socket) -> None:
    try:
        while True:
            listener.accept()[0].close()
    except OSError:
        return


def opens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 1.5).close()
    except OSError:
        return False
    return True
