"""The deadline of --max-hours on namespace hosts, where the machine's own shutdown refuses as systemd's."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import HostError
from infra.node.ssh import SSHHost
from tests.infra.local.deadlines import ends_in
from tests.infra.local.hosts.namespaces.rig import Rig, said
from tests.infra.local.requests import describe, until, wait_for

pytestmark = pytest.mark.rig

REFUSE = """
sudo rm -f /sbin/shutdown /usr/sbin/shutdown
printf '#!/bin/sh\\necho "System has not been booted with systemd as init system (PID 1)." >&2\\nexit 1\\n' |
    sudo tee /usr/sbin/shutdown >/dev/null
sudo chmod 755 /usr/sbin/shutdown
if /usr/sbin/shutdown -h now; then exit 1; fi
"""


def says(host: SSHHost, command: str) -> str:
    try:
        return said(host, command, timeout_seconds=10)
    except HostError:
        return ""


def test_a_host_ends_itself_at_the_deadline_which_no_reboot_puts_off(rig: Rig, tmp_path: Path) -> None:
    [made] = rig.launch(
        UserData=ends_in(rig.cloud, 7200, tmp_path), InstanceInitiatedShutdownBehavior="terminate"
    )
    timer = "systemctl is-active sparknet-deadline.timer && cat /run/init.pid && stat -c %y /run/init.pid"
    host = rig.host(made)
    until(lambda: says(host, timer) != "", "the timer to run", 60)
    until(lambda: says(host, "ls /var/log/own") != "", "the user's own script", 60)
    said(host, REFUSE)
    booted = says(host, timer)
    rig.cloud.control("POST", "clock", {"advance_seconds": 5400})
    rig.ec2.reboot_instances(InstanceIds=[made])
    until(lambda: says(rig.host(made), timer) not in ("", booted), "the timer to run again", 60)
    assert rig.state(made) == "running"
    rig.cloud.control("POST", "clock", {"advance_seconds": 1900})
    wait_for(rig.ec2, made, "terminated")
    assert describe(rig.ec2, made)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_connections_of_others_go_on_when_a_host_ends(rig: Rig) -> None:
    """The bridge keeps its address: with that of a port it would change with the host behind it."""
    from infra.local.hosts.namespaces.network import BRIDGE_ADDRESS

    first, second = rig.launch(2)
    host = rig.host(second)
    router = said(host, "ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'")
    seen = f"ping -c 1 {router} >/dev/null; ip neighbour show {router} | grep -o 'lladdr [0-9a-f:]*'"
    assert said(host, seen) == f"lladdr {BRIDGE_ADDRESS}"
    rig.end(first)
    assert said(host, seen) == f"lladdr {BRIDGE_ADDRESS}"
    rig.end(second)
