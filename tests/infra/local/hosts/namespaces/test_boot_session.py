"""Boots of a namespace host: reboots, stops, starts and ends, and what of its disks survives which."""

from __future__ import annotations

import time
from typing import Any

import pytest

from infra.errors import HostError
from tests.infra.local.hosts.namespaces.rig import Rig, said, status
from tests.infra.local.requests import describe, until, wait_for

pytestmark = [pytest.mark.rig, pytest.mark.slow]

UNIT = "[Service]\nExecStart=/bin/sleep 314\n[Install]\nWantedBy=multi-user.target\n"
STORE = "/dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_AWS*_1"
FURNISH = f"""set -e
for disk in $(ls /dev/disk/by-id/nvme-Amazon_Elastic*_1) $(ls {STORE}); do
    name=$(basename $(readlink -f $disk)); mkfs.ext4 -q $disk; mkdir -p /mnt/$name
    echo "UUID=$(blkid -o value -s UUID $disk) /mnt/$name ext4 defaults,nofail 0 2" >>/etc/fstab
    mount /mnt/$name; touch /mnt/$name/kept
done
touch /var/kept
systemctl daemon-reload
systemctl enable --now nap
"""


@pytest.fixture
def furnished(rig: Rig) -> Any:
    """An instance with a file on its root, on its volume and on its instance store, and a unit."""
    disk = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": True}}
    [instance] = rig.launch(
        InstanceType="g6.xlarge",
        BlockDeviceMappings=[disk],
        UserData="#!/bin/sh\necho once >>/var/log/mine\n",
    )
    host = rig.host(instance)
    host.run("sudo tee /etc/systemd/system/nap.service", stdin=UNIT, timeout_seconds=10)
    host.run("sudo sh", stdin=FURNISH, timeout_seconds=30)
    host.close()
    yield instance
    rig.end(instance)


def boot_of(rig: Rig, instance: str) -> str:
    """When the host was booted; empty while it does not answer."""
    host = rig.host(instance)
    try:
        return said(host, "stat -c %y /run/init.pid", timeout_seconds=5)
    except HostError:
        return ""
    finally:
        host.close()


def kept(rig: Rig, instance: str) -> set[str]:
    host = rig.host(instance)
    until(lambda: said(host, "cloud-init status") == "status: done", "the boot to be over")
    return set(said(host, "ls -d /var/kept /mnt/*/kept 2>/dev/null || true").split())


@pytest.mark.parametrize("command", ["", "sudo reboot", "sudo shutdown -r now"])
def test_a_reboot_keeps_all_disks_mounts_and_units(rig: Rig, furnished: str, command: str) -> None:
    before = boot_of(rig, furnished)
    if command:
        status(rig.host(furnished), f"nohup {command} >/dev/null 2>&1 &")
    else:
        rig.ec2.reboot_instances(InstanceIds=[furnished])
    until(lambda: boot_of(rig, furnished) not in ("", before), "the host to be up again")
    assert rig.state(furnished) == "running"
    assert kept(rig, furnished) == {"/var/kept", "/mnt/nvme1n1/kept", "/mnt/nvme2n1/kept"}
    host = rig.host(furnished)
    until(lambda: said(host, "systemctl is-active nap || true") == "active", "the unit to run again")
    assert said(host, "cat /var/log/mine") == "once"


def test_a_stop_and_start_keeps_all_but_the_instance_store(rig: Rig, furnished: str) -> None:
    private = describe(rig.ec2, furnished)["PrivateIpAddress"]
    rig.ec2.stop_instances(InstanceIds=[furnished])
    wait_for(rig.ec2, furnished, "stopped")
    rig.ec2.start_instances(InstanceIds=[furnished])
    wait_for(rig.ec2, furnished, "running")
    assert describe(rig.ec2, furnished)["PrivateIpAddress"] == private
    assert kept(rig, furnished) == {"/var/kept", "/mnt/nvme1n1/kept"}
    assert status(rig.host(furnished), f"sudo blkid $(ls {STORE})") == 2  # blank again


def test_a_shutdown_from_inside_ends_the_instance_as_it_was_told_to(rig: Rig) -> None:
    [stops] = rig.launch()
    [ends] = rig.launch(InstanceInitiatedShutdownBehavior="terminate")
    for instance in (stops, ends):
        status(rig.host(instance), "nohup sudo shutdown -h now >/dev/null 2>&1 &")
    wait_for(rig.ec2, stops, "stopped")
    wait_for(rig.ec2, ends, "terminated")
    assert describe(rig.ec2, ends)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    rig.end(stops)


def test_processes_get_time_to_end_and_the_rest_is_killed(rig: Rig) -> None:
    [instance] = rig.launch()
    host = rig.host(instance)
    said(host, "nohup sh -c 'trap \"\" TERM; sleep 600' >/dev/null 2>&1 </dev/null &")
    said(host, "nohup sh -c 'trap \"echo bye | sudo tee /var/bye; exit\" TERM; touch /tmp/heeds;"
         " while :; do sleep 0.1; done' >/dev/null 2>&1 </dev/null &")  # fmt: skip
    until(lambda: status(host, "test -e /tmp/heeds") == 0, "a process that heeds SIGTERM")
    began = time.monotonic()
    rig.ec2.stop_instances(InstanceIds=[instance])
    wait_for(rig.ec2, instance, "stopped")
    assert time.monotonic() - began < 20
    rig.ec2.start_instances(InstanceIds=[instance])
    wait_for(rig.ec2, instance, "running")
    assert said(rig.host(instance), "cat /var/bye") == "bye"
    rig.end(instance)
