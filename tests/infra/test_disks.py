"""The plan of a node's disks, from what ``ami/disk-facts.sh`` prints on nodes of several kinds."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pytest

from infra import disks
from infra.disks import EBS_LINK, STORE_LINK, STORE_MODEL
from infra.errors import SetupError
from tests.infra.hosts import ScriptedHost

EBS_MODEL = "Amazon Elastic Block Store"
ROOT_VOLUME, SPILL = "vol-0aaaaaaaaaaaaaaaa", "vol-0123456789abcdef0"
SECOND = "vol-0fedcba9876543210"


def block(name: str, model: str, *, mountpoint: str | None = None, parts: int = 0) -> dict[str, Any]:
    children = [
        {"name": f"{name}p{n}", "type": "part", "mountpoint": "/" if n == 1 else None}
        for n in range(1, parts + 1)
    ]
    facts: dict[str, Any] = {"name": name, "type": "disk", "model": model, "mountpoint": mountpoint}
    return facts | ({"children": children} if children else {})


def ebs(name: str, volume: str, kind: str = "", label: str = "") -> str:
    return f"{EBS_LINK}{volume.replace('-', '')}\t{name}\t{kind}\t{label}"


def store(name: str, serial: str, kind: str = "", label: str = "") -> str:
    return f"{STORE_LINK}{serial}\t{name}\t{kind}\t{label}"


def facts(links: list[str], blocks: list[dict[str, Any]], mounts: tuple[str, ...] = ()) -> disks.Facts:
    listing = json.dumps({"blockdevices": blocks})
    return disks.parse("\n".join(["== links", *links, "== lsblk", listing, "== mounts", *mounts, ""]))


ROOT = block("nvme0n1", EBS_MODEL, parts=3)
ROOT_LINK = ebs("nvme0n1", ROOT_VOLUME)
ROOT_MOUNT = "/dev/nvme0n1p1 on / type ext4 (rw,relatime)"

M_FAMILY = facts([ROOT_LINK, ebs("nvme1n1", SPILL)], [ROOT, block("nvme1n1", EBS_MODEL)], (ROOT_MOUNT,))
G4DN = facts(
    [ROOT_LINK, ebs("nvme2n1", SPILL), store("nvme1n1", "AWS11"), store("nvme1n1", "AWS11_1")],
    [ROOT, block("nvme1n1", STORE_MODEL), block("nvme2n1", EBS_MODEL)],
    (ROOT_MOUNT,),
)
G6_48XLARGE = facts(
    [ROOT_LINK, ebs("nvme9n1", SPILL), *(store(f"nvme{n}n1", f"AWS{n}") for n in range(1, 9))],
    [ROOT, *(block(f"nvme{n}n1", STORE_MODEL) for n in range(1, 9)), block("nvme9n1", EBS_MODEL)],
    (ROOT_MOUNT,),
)
DEEP_LEARNING_IMAGE = facts(
    [ROOT_LINK, ebs("nvme2n1", SPILL), store("nvme1n1", "AWS11", "LVM2_member")],
    [ROOT, block("nvme1n1", STORE_MODEL), block("nvme2n1", EBS_MODEL)],
    (ROOT_MOUNT, "/dev/mapper/vg.01-lv_ephemeral on /opt/dlami/nvme type ext4 (rw,noatime)"),
)


def test_an_ebs_volume_is_found_by_its_id_whatever_the_kernel_calls_it() -> None:
    plan = disks.plan(M_FAMILY, [SPILL])
    assert [mount.link for mount in plan.mounts] == [EBS_LINK + SPILL.replace("-", "")]
    assert plan.mounts[0].format
    assert plan.folders == ("/mnt/sparknet/spill0/spark",)


def test_the_types_own_disk_comes_before_ebs_and_once() -> None:
    plan = disks.plan(G4DN, [SPILL])
    assert [mount.label for mount in plan.mounts] == ["store0", "spill0"]
    assert plan.mounts[0].link == STORE_LINK + "AWS11"


def test_eight_disks_make_eight_folders() -> None:
    plan = disks.plan(G6_48XLARGE, [SPILL])
    assert [mount.label for mount in plan.mounts] == [*(f"store{n}" for n in range(8)), "spill0"]
    assert len(set(plan.folders)) == 9


def test_what_the_image_has_mounted_is_used_as_it_is() -> None:
    plan = disks.plan(DEEP_LEARNING_IMAGE, [SPILL])
    assert [mount.label for mount in plan.mounts] == ["spill0"]
    assert plan.folders == ("/opt/dlami/nvme/sparknet", "/mnt/sparknet/spill0/spark")


def test_the_root_disk_is_never_touched() -> None:
    for node in (M_FAMILY, G4DN, G6_48XLARGE, DEEP_LEARNING_IMAGE):
        assert not any(
            ROOT_VOLUME.replace("-", "") in mount.link for mount in disks.plan(node, [SPILL]).mounts
        )


def test_a_volume_with_a_foreign_file_system_is_refused_and_left_alone() -> None:
    node = facts([ROOT_LINK, ebs("nvme1n1", SPILL, "xfs", "backup")], [ROOT, block("nvme1n1", EBS_MODEL)])
    with pytest.raises(SetupError, match="holds a xfs file system that is not SparkNet's"):
        disks.plan(node, [SPILL])


def test_an_instance_store_with_somebodys_file_system_is_passed_over() -> None:
    node = facts(
        [ROOT_LINK, store("nvme1n1", "AWS1", "ext4", "scratch"), ebs("nvme2n1", SPILL)],
        [ROOT, block("nvme1n1", STORE_MODEL), block("nvme2n1", EBS_MODEL)],
    )
    assert [mount.label for mount in disks.plan(node, [SPILL]).mounts] == ["spill0"]


def test_a_partitioned_instance_store_is_passed_over() -> None:
    node = facts([store("nvme1n1", "AWS1")], [block("nvme1n1", STORE_MODEL, parts=1)])
    assert disks.plan(node, []).mounts == ()


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
