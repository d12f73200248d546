"""Disks of a namespace host: real block devices under Nitro's names, attached and detached while it runs."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pytest

from infra.node import bootstrap
from infra.node.ssh import SSHHost
from tests.infra.local.hosts.namespaces.rig import Rig, said, status
from tests.infra.local.requests import describe, until

pytestmark = pytest.mark.rig

BY_ID = "/dev/disk/by-id"


@pytest.fixture(scope="module")
def host(rig: Rig, pair: list[str]) -> SSHHost:
    return rig.host(pair[0])


def link(volume: str) -> str:
    return f"{BY_ID}/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"


def test_lsblk_shows_models_serials_and_sizes_as_on_nitro(rig: Rig, pair: list[str], host: SSHHost) -> None:
    [mapping] = [
        m for m in describe(rig.ec2, pair[0])["BlockDeviceMappings"] if m["DeviceName"] == "/dev/sdf"
    ]
    listed = json.loads(said(host, "lsblk --json --bytes -o NAME,TYPE,SIZE,MODEL,SERIAL"))["blockdevices"]
    disks = {disk["model"]: disk for disk in listed}
    ebs, store = disks["Amazon Elastic Block Store"], disks["Amazon EC2 NVMe Instance Storage"]
    assert len(listed) == 2
    assert ebs["serial"] == mapping["Ebs"]["VolumeId"].replace("-", "")
    assert (ebs["size"], store["size"]) == (2 << 30, 250 * 10**9)
    assert said(host, f"readlink -f {link(mapping['Ebs']['VolumeId'])}") == f"/dev/{ebs['name']}"
    assert said(host, f"readlink -f {BY_ID}/nvme-Amazon_EC2_NVMe_Instance_Storage_{store['serial']}") == (
        f"/dev/{store['name']}"
    )


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_volume_is_attached_formatted_mounted_by_uuid_and_moved(
    rig: Rig, pair: list[str], kind: str
) -> None:
    here, there = rig.host(pair[0]), rig.host(pair[1])
    volume = rig.volume()
    attach(rig, here, volume, pair[0])
    if status(here, f"command -v mkfs.{kind}") != 0:
        pytest.skip(f"there is no mkfs.{kind}: install xfsprogs")
    said(here, f"sudo mkfs.{kind} -q -L mine {link(volume)} && sudo mkdir -p /mnt/{kind}")
    uuid = said(here, f"sudo blkid -o value -s UUID {link(volume)}")
    said(here, f"echo 'UUID={uuid} /mnt/{kind} {kind} defaults,nofail 0 2' | sudo tee -a /etc/fstab")
    said(here, f"sudo mount /mnt/{kind} && echo kept | sudo tee /mnt/{kind}/file")
    assert said(here, f"findmnt -no SOURCE,FSTYPE /mnt/{kind}").split() == [
        said(here, f"readlink -f {link(volume)}"), kind,
    ]  # fmt: skip
    assert (
        status(here, f"sudo dd if=/dev/zero of=/mnt/{kind}/large bs=1M count=1100 status=none") != 0
    )  # 1 GiB
    said(here, f"sudo umount /mnt/{kind}")
    detach(rig, here, volume)
    attach(rig, there, volume, pair[1])
    said(there, f"sudo mkdir -p /mnt/{kind} && sudo mount {link(volume)} /mnt/{kind}")
    assert said(there, f"cat /mnt/{kind}/file; sudo umount /mnt/{kind}") == "kept"
    detach(rig, there, volume)
    rig.ec2.delete_volume(VolumeId=volume)


def attach(rig: Rig, host: SSHHost, volume: str, instance_id: str) -> None:
    rig.ec2.attach_volume(VolumeId=volume, InstanceId=instance_id, Device="/dev/sdm")
    until(lambda: status(host, f"test -b {link(volume)}") == 0, "the volume to be seen")


def detach(rig: Rig, host: SSHHost, volume: str) -> None:
    rig.ec2.detach_volume(VolumeId=volume)
    until(lambda: status(host, f"test -e {link(volume)}") != 0, "the volume to be gone")


def test_a_volume_that_is_pulled_fails_and_is_whole_elsewhere(rig: Rig, pair: list[str]) -> None:
    here, there = rig.host(pair[0]), rig.host(pair[1])
    volume = rig.volume()
    attach(rig, here, volume, pair[0])
    said(here, f"sudo mkfs.ext4 -q {link(volume)} && sudo mkdir -p /mnt/pulled")
    said(here, f"sudo mount {link(volume)} /mnt/pulled && echo kept | sudo tee /mnt/pulled/file && sync")
    assert status(here, "echo more | sudo dd of=/mnt/pulled/more conv=fsync") == 0
    rig.ec2.detach_volume(VolumeId=volume, Force=True)
    until(lambda: status(here, f"test -e {link(volume)}") != 0, "the volume to be gone")
    assert status(here, "echo lost | sudo dd of=/mnt/pulled/lost conv=fsync") != 0
    assert status(here, "sudo touch /mnt/pulled/other && sync -f /mnt/pulled") != 0
    said(here, "sudo umount /mnt/pulled")
    attach(rig, there, volume, pair[1])
    said(there, f"sudo mkdir -p /mnt/pulled && sudo mount {link(volume)} /mnt/pulled")
    assert said(there, "ls /mnt/pulled; cat /mnt/pulled/file; sudo umount /mnt/pulled").split() == [
        "file", "lost+found", "more", "kept",
    ]  # fmt: skip
    detach(rig, there, volume)
    rig.ec2.delete_volume(VolumeId=volume)


def test_a_blank_disk_is_formatted_once_and_one_with_partitions_never(
    rig: Rig, pair: list[str], host: SSHHost
) -> None:
    volume = rig.volume()
    attach(rig, host, volume, pair[0])
    said(host, "mkdir -p ~/ami && sudo cp /etc/fstab /tmp/fstab")
    folder = said(host, "echo ~/ami")
    host.put(bootstrap.AMI / "mount-disk.sh", PurePosixPath(folder) / "mount-disk.sh")
    mount = f"bash {folder}/mount-disk.sh {link(volume)} spill7 /mnt/sparknet/spill7 format"
    table = "printf '\\000\\000\\002\\000\\203\\000\\000\\000\\000\\010\\000\\000\\000\\020\\000\\000'"
    said(host, f"{table} | sudo dd of={link(volume)} bs=1 seek=446 conv=fsync status=none")
    said(host, f"printf '\\125\\252' | sudo dd of={link(volume)} bs=1 seek=510 conv=fsync status=none")
    refused = host.run(mount, timeout_seconds=60, check=False)
    assert (refused.exit_status, "has a dos partition table" in refused.stderr) == (1, True)
    said(host, f"sudo dd if=/dev/zero of={link(volume)} bs=512 count=1 conv=fsync status=none")
    said(host, "echo UUID=gone /mnt/sparknet/spill7 ext4 defaults,nofail 0 2 | sudo tee -a /etc/fstab")
    for _ in range(2):
        said(host, mount)
    uuid = said(host, f"sudo blkid -o value -s UUID {link(volume)}")
    assert said(host, "grep spill7 /etc/fstab").split()[0] == f"UUID={uuid}"
    label = said(host, f"sudo blkid -o value -s LABEL {link(volume)}")
    shown = said(host, "findmnt -no FSTYPE /mnt/sparknet/spill7; stat -c %a /etc/fstab").split()
    assert (label, shown) == ("spill7", ["ext4", "644"])
    said(host, "sudo umount /mnt/sparknet/spill7 && sudo cp /tmp/fstab /etc/fstab")
    detach(rig, host, volume)
    rig.ec2.delete_volume(VolumeId=volume)
