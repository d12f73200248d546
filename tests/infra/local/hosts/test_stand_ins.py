"""Stand-ins on a host: tools as their users call them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.local import LocalCloud
from infra.local.hosts.client import ProcessHost
from tests.infra.local.requests import machine, until, wait_for

SPILL = {
    "DeviceName": "/dev/sdf",
    "Ebs": {"VolumeSize": 100, "VolumeType": "gp3", "DeleteOnTermination": True},
}


@pytest.fixture
def host(hosts_cloud: LocalCloud, hosts_ec2: Any) -> ProcessHost:
    """Of a type with an instance store, with one volume."""
    made = machine(hosts_ec2, InstanceType="g6.xlarge", BlockDeviceMappings=[SPILL])
    wait_for(hosts_ec2, made["InstanceId"], "running")
    return hosts_cloud.connect(made["InstanceId"])


def say(host: ProcessHost, command: str, status: int = 0) -> str:
    said = host.run(command, timeout_seconds=20, check=False)
    assert said.exit_status == status, said.stderr
    return said.stdout.strip()


def test_a_volume_goes_from_blank_to_mounted_and_back_as_on_ec2(host: ProcessHost) -> None:
    device = say(host, "echo $SPARKNET_ROOT/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol*")
    assert "*" not in device
    assert say(host, f"blkid -s TYPE -o value {device}", status=2) == ""
    point = str(host.root / "mnt/spill")
    assert say(host, f"mkdir -p {point}; sudo mount {device} {point}", status=32) == ""
    say(host, f"sudo mkfs.ext4 -q -L spill {device}")
    say(host, f"sudo mkfs.ext4 -q {device}", status=1)
    say(host, f"sudo mount -o noatime {device} {point}")
    assert say(host, f"findmnt -no FSTYPE {point}") == "ext4"
    assert say(host, f"mountpoint -q {point} && echo yes") == "yes"
    uuid = say(host, f"blkid -s UUID -o value {device}")
    say(host, f"echo data > {point}/file; sudo umount {point}")
    assert say(host, f"ls {point}") == ""
    say(
        host,
        f"echo 'UUID={uuid} /mnt/spill ext4 defaults,nofail 0 2' >> $SPARKNET_ROOT/etc/fstab; sudo mount -a",
    )
    assert say(host, f"cat {point}/file") == "data"
    assert say(host, "sudo mount -a; findmnt -n -o TARGET") == point
    log = say(host, "cat $SPARKNET_ROOT/var/log/stand-ins.log")
    assert f"mkfs.ext4 -q -L spill {device}" in log


def test_lsblk_tells_ebs_from_instance_store(host: ProcessHost) -> None:
    found = json.loads(say(host, "lsblk --json -b -o NAME,SIZE,MODEL,SERIAL,FSTYPE,MOUNTPOINTS"))[
        "blockdevices"
    ]
    kinds = {disk["model"]: disk for disk in found}
    assert set(kinds) == {"Amazon Elastic Block Store", "Amazon EC2 NVMe Instance Storage"}
    assert kinds["Amazon Elastic Block Store"]["size"] == 100 << 30
    assert kinds["Amazon Elastic Block Store"]["serial"].startswith("vol")
    assert say(host, "lsblk -dno SERIAL").splitlines() == [disk["serial"] for disk in found]


def test_a_volume_attached_later_appears_and_detached_disappears(
    hosts_cloud: LocalCloud, hosts_ec2: Any, host: ProcessHost
) -> None:
    zone = hosts_ec2.describe_instances(InstanceIds=[host.name])["Reservations"][0]["Instances"][0][
        "Placement"
    ]
    volume = hosts_ec2.create_volume(Size=8, AvailabilityZone=zone["AvailabilityZone"])["VolumeId"]
    link = f"$SPARKNET_ROOT/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"
    say(host, f"test -e {link}", status=1)
    hosts_ec2.attach_volume(VolumeId=volume, InstanceId=host.name, Device="/dev/sdg")
    say(host, f"test -e {link} && sudo mkfs.xfs {link}")
    hosts_ec2.detach_volume(VolumeId=volume)
    say(host, f"test -e {link}", status=1)
    hosts_ec2.delete_volume(VolumeId=volume)
    assert not (hosts_cloud.folder / "volumes" / volume).exists()


UNIT = """[Unit]
Description=A daemon
[Service]
Environment=GREETING=hello
EnvironmentFile={root}/etc/daemon
ExecStart=/bin/sh -c 'echo ${{GREETING}} $WHOM >> {root}/greetings; exec sleep 300'
Restart=on-failure
RestartSec=100ms
[Install]
WantedBy=multi-user.target
"""


def test_systemctl_starts_restarts_stops_and_enables(host: ProcessHost) -> None:
    root = str(host.root)
    host.run(
        f"cat > {root}/etc/systemd/system/daemon.service", stdin=UNIT.format(root=root), timeout_seconds=5
    )
    say(host, f"echo WHOM=world > {root}/etc/daemon; sudo systemctl daemon-reload")
    assert say(host, "systemctl is-active daemon", status=3) == "inactive"
    say(host, "sudo systemctl enable --now daemon")
    assert say(host, "systemctl is-active daemon") == "active"

    def greeted(count: int) -> None:
        wanted = "\n".join(["hello world"] * count)
        read = f"cat {root}/greetings 2>/dev/null"
        until(lambda: host.run(read, timeout_seconds=20, check=False).stdout.strip() == wanted, wanted)

    greeted(1)
    say(host, f"kill -9 $(pgrep -f -x 'sleep 300' -s $(cat {root}/run/units/daemon.service.pid))")
    greeted(2)
    say(host, "sudo systemctl stop daemon")
    assert say(host, "systemctl is-active daemon", status=3) == "inactive"
    say(host, "sudo systemctl start missing", status=5)
    host.run("sudo reboot", timeout_seconds=20, check=False)
    greeted(3)


def test_a_timer_can_shut_the_machine_down(hosts_ec2: Any, host: ProcessHost) -> None:
    root = str(host.root)
    units = {
        "end.service": f"[Service]\nType=oneshot\nExecStart={root}/bin/shutdown -h now\n",
        "end.timer": "[Timer]\nOnActiveSec=1s\n[Install]\nWantedBy=timers.target\n",
    }
    for name, text in units.items():
        host.run(f"cat > {root}/etc/systemd/system/{name}", stdin=text, timeout_seconds=5)
    say(host, "sudo systemctl enable --now end.timer")
    wait_for(hosts_ec2, host.name, "stopped")


def test_a_shutdown_can_be_planned_and_taken_back(hosts_ec2: Any, host: ProcessHost) -> None:
    say(host, "sudo shutdown -h +60")
    pending = say(host, "cat $SPARKNET_ROOT/run/shutdown.pid")
    say(host, f"kill -0 {pending}")
    say(host, "sudo shutdown -c")
    say(host, f"kill -0 {pending}", status=1)
