"""The plan of a node's disks, from what ``ami/disk-facts.sh`` prints on nodes of several kinds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from infra.errors import SetupError
from infra.node import disks
from infra.node.disks import EBS_LINK, STORE_LINK, STORE_MODEL
from tests.infra.hosts import ScriptedHost

EBS_MODEL = "Amazon Elastic Block Store"
ROOT_VOLUME, SPILL = "vol-0aaaaaaaaaaaaaaaa", "vol-0123456789abcdef0"
SECOND = "vol-0fedcba9876543210"


def block(
    name: str,
    model: str,
    *,
    gb: float = 100,
    serial: str = "",
    children: tuple[dict[str, Any], ...] = (),
) -> dict[str, Any]:
    """A disk as ``lsblk --json`` shows it: the model padded to the width that NVMe has for it."""
    facts: dict[str, Any] = {
        "name": name,
        "type": "disk",
        "size": int(gb * 10**9),
        "fstype": None,
        "label": None,
        "mountpoint": None,
        "model": f"{model:<40}",
        "serial": serial,
    }
    return facts | ({"children": list(children)} if children else {})


def part(name: str, fstype: str | None = None, mountpoint: str | None = None) -> dict[str, Any]:
    return {"name": name, "type": "part", "fstype": fstype, "mountpoint": mountpoint}


def links(prefix: str, serial: str, name: str, kind: str = "", label: str = "", parts: int = 0) -> list[str]:
    """The names udev makes of one disk and its partitions; Ubuntu ends some in _1, Amazon Linux in -ns-1."""
    serial = serial.replace("-", "")
    made = [f"{prefix}{serial}{end}\t{name}\t{kind}\t{label}" for end in ("", "_1", "-ns-1")]
    for number in range(1, parts + 1):
        made += [f"{prefix}{serial}{end}-part{number}\t{name}p{number}\t\t" for end in ("", "_1", "-ns-1")]
    return sorted(made)


def ebs(name: str, volume: str, kind: str = "", label: str = "") -> str:
    return f"{EBS_LINK}{volume.replace('-', '')}\t{name}\t{kind}\t{label}"


def store(name: str, serial: str, kind: str = "", label: str = "", parts: int = 0) -> list[str]:
    return links(STORE_LINK, serial, name, kind, label, parts)


def facts(names: list[str], blocks: list[dict[str, Any]], mounts: tuple[str, ...] = ()) -> disks.Facts:
    listing = json.dumps({"blockdevices": blocks}, indent=3)
    return disks.parse("\n".join(["== links", *names, "== lsblk", listing, "== mounts", *mounts, ""]))


SNAP = {"name": "loop0", "type": "loop", "size": 67080192, "mountpoint": "/snap/core20/2015", "model": None}
ROOT = block(
    "nvme0n1",
    EBS_MODEL,
    gb=32.2,
    serial=ROOT_VOLUME.replace("-", ""),
    children=(
        part("nvme0n1p1", "ext4", "/"),
        part("nvme0n1p14"),
        part("nvme0n1p15", "vfat", "/boot/efi"),
    ),
)
ROOT_LINK = ebs("nvme0n1", ROOT_VOLUME, "gpt")
ROOT_LINKS = links(EBS_LINK, ROOT_VOLUME, "nvme0n1", "gpt", parts=1)
ROOT_MOUNT = "/dev/nvme0n1p1 on / type ext4 (rw,relatime,discard,errors=remount-ro)"


def serial(number: int) -> str:
    """As AWS gives them to instance stores: AWS and seventeen hexadecimal digits."""
    return f"AWS47F206C2DE5276E{number:02X}"


def gpu_node(*store_gb: int, first: int = 1) -> disks.Facts:
    """A fresh node on Ubuntu: the root, the type's own disks from ``first`` on, and one added volume."""
    stores = [(f"nvme{number}n1", gb) for number, gb in enumerate(store_gb, first)]
    spill = f"nvme{first + len(stores) if first == 1 else 1}n1"
    names = [*ROOT_LINKS, *links(EBS_LINK, SPILL, spill)]
    blocks = [SNAP, ROOT, block(spill, EBS_MODEL, gb=107.4, serial=SPILL.replace("-", ""))]
    for number, (name, gb) in enumerate(stores, 1):
        names += store(name, serial(number))
        blocks.append(block(name, STORE_MODEL, gb=gb, serial=serial(number)))
    return facts(names, blocks, (ROOT_MOUNT,))


#: sizes as EC2's DescribeInstanceTypes gives them (docs/aws.md)
M_FAMILY = gpu_node()
G4DN = gpu_node(125)
G5 = gpu_node(250, first=2)  # the kernel met the volume first
G6 = gpu_node(250)
G6_8XLARGE = gpu_node(450, 450)
G6_48XLARGE = gpu_node(*[940] * 8)
#: what ``disk-facts.sh`` printed on a host of namespaces
NAMESPACE_HOST = disks.parse(
    """== links
nvme-Amazon_EC2_NVMe_Instance_Storage_AWS507304D001D3E9501\tnvme2n1\t\t
nvme-Amazon_EC2_NVMe_Instance_Storage_AWS507304D001D3E9501_1\tnvme2n1\t\t
nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0\tnvme1n1\t\t
nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0_1\tnvme1n1\t\t
== lsblk
{
   "blockdevices": [
      {
         "name": "nvme1n1", "type": "disk", "size": 107374182400, "fstype": null, "label": null,
         "mountpoint": null, "model": "Amazon Elastic Block Store", "serial": "vol0123456789abcdef0"
      },{
         "name": "nvme2n1", "type": "disk", "size": 125000000000, "fstype": null, "label": null,
         "mountpoint": null, "model": "Amazon EC2 NVMe Instance Storage", "serial": "AWS507304D001D3E9501"
      }
   ]
}
== mounts
overlay on / type overlay (rw,relatime,lowerdir=/,upperdir=/x/root/upper,workdir=/x/root/work,uuid=on)
tmpfs on /dev type tmpfs (rw,nosuid,relatime,size=4096k,mode=755)
"""
)
EPHEMERAL = {"name": "vg.01-lv_ephemeral", "type": "lvm", "fstype": "ext4", "mountpoint": "/opt/dlami/nvme"}
DEEP_LEARNING_IMAGE = facts(
    [
        *ROOT_LINKS,
        *links(EBS_LINK, SPILL, "nvme3n1"),
        *store("nvme1n1", serial(1), "LVM2_member"),
        *store("nvme2n1", serial(2), "LVM2_member"),
    ],
    [
        SNAP,
        ROOT,
        block("nvme1n1", STORE_MODEL, gb=450, children=(EPHEMERAL,)),
        block("nvme2n1", STORE_MODEL, gb=450, children=(EPHEMERAL,)),
        block("nvme3n1", EBS_MODEL),
    ],
    (ROOT_MOUNT, "/dev/mapper/vg.01-lv_ephemeral on /opt/dlami/nvme type ext4 (rw,noatime)"),
)
NODES = {
    "m6i.large": (M_FAMILY, 0),
    "g4dn.xlarge": (G4DN, 1),
    "g5.xlarge": (G5, 1),
    "g6.xlarge": (G6, 1),
    "g6.8xlarge": (G6_8XLARGE, 2),
    "g6.48xlarge": (G6_48XLARGE, 8),
    "namespace host": (NAMESPACE_HOST, 1),
}


@pytest.mark.parametrize("kind", list(NODES))
def test_the_types_own_disks_come_first_and_each_once(kind: str) -> None:
    node, stores = NODES[kind]
    plan = disks.plan(node, [SPILL])
    labels = [*(f"store{number}" for number in range(stores)), "spill0"]
    assert [mount.label for mount in plan.mounts] == labels
    assert plan.folders == tuple(f"/mnt/sparknet/{label}/spark" for label in labels)
    assert all(mount.format for mount in plan.mounts)
    devices = {link.name: link.kernel_name for link in node.links}
    assert len({devices[mount.link] for mount in plan.mounts}) == stores + 1


@pytest.mark.parametrize("kind", list(NODES))
def test_what_was_done_is_not_done_again(kind: str) -> None:
    node, _ = NODES[kind]
    first = disks.plan(node, [SPILL])
    labels = {mount.link: mount.label for mount in first.mounts}
    devices = {link.name: link.kernel_name for link in node.links}
    on_device = {devices[link]: label for link, label in labels.items()}
    known = tuple(
        replace(link, file_system="ext4", label=on_device[link.kernel_name])
        if link.kernel_name in on_device
        else link
        for link in node.links
    )
    unmounted = disks.plan(replace(node, links=known), [SPILL])  # as after a reboot without fstab
    assert [(mount.label, mount.format) for mount in unmounted.mounts] == [
        (label, False) for label in labels.values()
    ]
    mounts = tuple(
        disks.Mounted(source=f"/dev/{device}", mount_point=f"/mnt/sparknet/{label}")
        for device, label in on_device.items()
    )
    again = disks.plan(replace(node, links=known, mounts=(*node.mounts, *mounts)), [SPILL])
    assert (again.mounts, again.folders) == ((), first.folders)


@pytest.mark.parametrize(
    "content", ["xfs", "swap", "LVM2_member", "linux_raid_member", "crypto_LUKS", "gpt", "dos", "zfs_member"]
)
def test_nothing_that_holds_anything_is_ever_formatted(content: str) -> None:
    node = facts(
        [*ROOT_LINKS, *store("nvme1n1", serial(1), content), *store("nvme2n1", serial(2))],
        [ROOT, block("nvme1n1", STORE_MODEL), block("nvme2n1", STORE_MODEL)],
        (ROOT_MOUNT,),
    )
    assert [mount.link for mount in disks.plan(node, []).mounts] == [STORE_LINK + serial(2)]
    volume = facts([*ROOT_LINKS, *links(EBS_LINK, SPILL, "nvme1n1", content)], [ROOT], (ROOT_MOUNT,))
    with pytest.raises(SetupError, match=f"holds a {content} file system that is not SparkNet's"):
        disks.plan(volume, [SPILL])


def test_an_ebs_volume_is_found_by_its_id_whatever_the_kernel_calls_it() -> None:
    plan = disks.plan(M_FAMILY, [SPILL])
    assert [mount.link for mount in plan.mounts] == [EBS_LINK + SPILL.replace("-", "")]
    assert plan.mounts[0].format
    assert plan.folders == ("/mnt/sparknet/spill0/spark",)


def test_what_the_image_has_mounted_is_used_as_it_is() -> None:
    plan = disks.plan(DEEP_LEARNING_IMAGE, [SPILL])
    assert [mount.label for mount in plan.mounts] == ["spill0"]
    assert plan.folders == ("/opt/dlami/nvme/sparknet", "/mnt/sparknet/spill0/spark")


def test_the_root_disk_is_never_touched() -> None:
    for node in (M_FAMILY, G4DN, G5, G6, G6_48XLARGE, DEEP_LEARNING_IMAGE):
        assert not any(
            ROOT_VOLUME.replace("-", "") in mount.link for mount in disks.plan(node, [SPILL]).mounts
        )


def test_a_volume_with_a_foreign_file_system_is_refused_and_left_alone() -> None:
    node = facts([ROOT_LINK, ebs("nvme1n1", SPILL, "xfs", "backup")], [ROOT, block("nvme1n1", EBS_MODEL)])
    with pytest.raises(SetupError, match="holds a xfs file system that is not SparkNet's"):
        disks.plan(node, [SPILL])


def test_an_instance_store_with_somebodys_file_system_is_passed_over() -> None:
    node = facts(
        [ROOT_LINK, *store("nvme1n1", "AWS1", "ext4", "scratch"), ebs("nvme2n1", SPILL)],
        [ROOT, block("nvme1n1", STORE_MODEL), block("nvme2n1", EBS_MODEL)],
    )
    assert [mount.label for mount in disks.plan(node, [SPILL]).mounts] == ["spill0"]


def test_a_partitioned_instance_store_is_passed_over() -> None:
    partitioned = block("nvme1n1", STORE_MODEL, children=(part("nvme1n1p1"), part("nvme1n1p2")))
    node = facts(store("nvme1n1", serial(1), "gpt", parts=2), [partitioned])
    assert disks.plan(node, []).mounts == ()


def test_a_volume_with_partitions_is_refused() -> None:
    partitioned = block("nvme1n1", EBS_MODEL, children=(part("nvme1n1p1"),))
    node = facts(links(EBS_LINK, SPILL, "nvme1n1", parts=1), [ROOT, partitioned])
    with pytest.raises(SetupError, match="has partitions; it was left as it is"):
        disks.plan(node, [SPILL])


def test_our_own_file_system_is_mounted_again_without_being_made() -> None:
    node = facts([ROOT_LINK, ebs("nvme1n1", SPILL, "ext4", "spill0")], [ROOT, block("nvme1n1", EBS_MODEL)])
    (mount,) = disks.plan(node, [SPILL]).mounts
    assert not mount.format


def test_a_second_run_changes_nothing() -> None:
    node = facts(
        [ROOT_LINK, ebs("nvme1n1", SPILL, "ext4", "spill0"), ebs("nvme2n1", SECOND, "ext4", "spill1")],
        [ROOT, block("nvme1n1", EBS_MODEL), block("nvme2n1", EBS_MODEL)],
        (
            "/dev/nvme1n1 on /mnt/sparknet/spill0 type ext4 (rw)",
            "/dev/nvme2n1 on /mnt/sparknet/spill1 type ext4 (rw)",
        ),
    )
    plan = disks.plan(node, [SECOND, SPILL])
    assert plan.mounts == ()
    assert sorted(plan.folders) == ["/mnt/sparknet/spill0/spark", "/mnt/sparknet/spill1/spark"]


def test_a_missing_volume_is_named() -> None:
    with pytest.raises(SetupError, match=SECOND):
        disks.plan(M_FAMILY, [SPILL, SECOND])


def test_without_any_disk_the_root_volume_serves() -> None:
    assert disks.plan(facts([ROOT_LINK], [ROOT]), []).folders == ("/var/lib/sparknet/spark",)


def test_paths_are_those_of_the_host() -> None:
    root = PurePosixPath("/srv/hosts/i-1")
    mounted = f"{root}/dev/nvme1n1 on {root}/mnt/sparknet/spill0 type ext4 (rw)"
    node = facts([ebs("nvme1n1", SPILL, "ext4", "spill0")], [], (mounted,))
    assert disks.plan(node, [SPILL], root).mounts == ()


def test_an_account_that_is_none_is_told_as_it_was() -> None:
    with pytest.raises(SetupError, match="command not found"):
        disks.parse("bash: lsblk: command not found")


def test_each_mount_is_one_call_of_the_script() -> None:
    text = f"== links\n{ebs('nvme1n1', SPILL)}\n== lsblk\n" + '{"blockdevices": []}\n== mounts\n'
    host = ScriptedHost(answers={"disk-facts.sh": text})
    folders = disks.prepare(host, [SPILL])
    calls = [command for command in host.ran if "mount-disk.sh" in command]
    assert len(calls) == 1
    assert calls[0].endswith(f"{EBS_LINK}{SPILL.replace('-', '')} spill0 /mnt/sparknet/spill0 format")
    assert folders == (PurePosixPath("/mnt/sparknet/spill0/spark"),)
