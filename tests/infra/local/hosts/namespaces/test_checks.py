"""The checks on real hosts: what they report, a disk that fell off, a port that a security group refuses."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from infra.node import bootstrap, checks
from infra.node.ssh import SSHHost
from tests.infra.local.hosts.namespaces.rig import Rig, allow, group_of, said
from tests.infra.local.requests import describe

pytestmark = [pytest.mark.rig, pytest.mark.slow]

MOUNT_POINT = PurePosixPath("/mnt/sparknet/spill0")
FOLDER = MOUNT_POINT / "spark"


def prepared(rig: Rig, instance: str) -> SSHHost:
    host = rig.host(instance)
    said(host, "cloud-init status --wait")
    said(host, "sudo chown ubuntu /opt/sparknet")
    host.put(bootstrap.AMI, PurePosixPath("/opt/sparknet/ami"))
    return host


def test_the_gate_sees_a_disk_that_is_not_mounted_and_a_port_that_is_refused(rig: Rig) -> None:
    disk = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": True}}
    group = group_of(rig)
    pair = rig.launch(2, SecurityGroupIds=[group], BlockDeviceMappings=[disk])
    first, second = (prepared(rig, instance) for instance in pair)
    device = "$(ls /dev/disk/by-id/nvme-Amazon_Elastic*_1)"
    for host in (first, second):
        said(host, f"sudo mkfs.ext4 -q {device} && sudo mkdir -p {MOUNT_POINT}")
        said(host, f"sudo mount {device} {MOUNT_POINT} && sudo mkdir {FOLDER} && sudo chown ubuntu {FOLDER}")

    told = [checks.inspect(host, name, [FOLDER], gpus=0) for host, name in ((first, "master"), (second, "w"))]
    assert checks.problems(told) == ()
    assert told[0].environment == told[1].environment
    assert told[0].folders[0].mount_point == str(MOUNT_POINT)

    said(second, f"sudo umount {MOUNT_POINT}")
    lost = checks.inspect(second, "w", [FOLDER], gpus=0)
    assert [(one.node, one.check) for one in checks.problems([told[0], lost])] == [("w", "disk")]

    address = describe(rig.ec2, pair[1])["PrivateIpAddress"]
    endpoint = f"{address}:22"
    assert checks.reach(first, [endpoint]) == {endpoint: "timed out"}
    allow(rig, group, 22, other=group)
    assert checks.reach(first, [endpoint]) == {endpoint: ""}
    rig.end(*pair)
