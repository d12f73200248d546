"""Disks: which device becomes which mount point (a pure plan from recorded facts), and doing it.

EBS volumes are found by their id, never by ``/dev/sdX``: on Nitro the kernel names them in any order, and the
link ``/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol...`` is the only thing that identifies one. The
disks of the instance type itself are used first, being faster and already paid for. Nothing with a file
system is ever formatted.
https://docs.aws.amazon.com/ebs/latest/userguide/nvme-ebs-volumes.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from shlex import quote
from typing import Any

from infra.errors import SetupError, last_lines
from infra.node.bootstrap import ON_NODE
from infra.node.host import Host

EBS_LINK = "nvme-Amazon_Elastic_Block_Store_"
STORE_MODEL = "Amazon EC2 NVMe Instance Storage"
STORE_LINK = "nvme-Amazon_EC2_NVMe_Instance_Storage_"
IMAGE_MOUNT = "/opt/dlami/nvme"  # the Deep Learning image makes one file system of all instance-store disks
PARTITION = re.compile(r"-part\d+$")
ROOT = PurePosixPath("/")


@dataclass(frozen=True, kw_only=True)
class Link:
    """A name below /dev/disk/by-id and what is on the device it leads to."""

    name: str
    kernel_name: str
    file_system: str  # or the member of a RAID or an LVM, or the partition table; empty: it is blank
    label: str


@dataclass(frozen=True, kw_only=True)
class Mounted:
    """A line of the mount table."""

    source: str
    mount_point: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What ``ami/disk-facts.sh`` printed."""

    links: tuple[Link, ...]
    blocks: tuple[dict[str, Any], ...]  # lsblk's, with their children
    mounts: tuple[Mounted, ...]


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One file system to be mounted; made first if ``format`` is true."""

    link: str
    label: str
    mount_point: str
    format: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``mounts`` to do, then ``folders`` for Spark, fastest first. Paths as on the node's root."""

    mounts: tuple[Mount, ...]
    folders: tuple[str, ...]


def parse(text: str) -> Facts:
    """The facts out of the output of ``ami/disk-facts.sh``. Raises SetupError if it is something else."""
    sections: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("== "):
            sections[line[3:].split()[0]] = lines = []
        elif sections and line:
            lines.append(line)
    try:
        blocks = json.loads("\n".join(sections["lsblk"]))["blockdevices"]
        links = [Link(**dict(zip(_LINK_FIELDS, line.split("\t"), strict=True))) for line in sections["links"]]
        mounts = [_mounted(line) for line in sections["mounts"] if " on " in line]
    except (KeyError, ValueError, TypeError) as error:
        raise SetupError(
            f"The node's account of its disks cannot be read ({error!r}):\n{text[:2000]}"
        ) from None
    return Facts(links=tuple(links), blocks=tuple(blocks), mounts=tuple(mounts))


def plan(facts: Facts, volumes: Sequence[str], root: PurePosixPath = ROOT) -> Plan:
    """What to mount where, on a node with the added EBS ``volumes``. The same facts after it was done: no
    mounts.

    Raises SetupError if a volume is not there, or holds a file system that is not ours.
    """
    by_image = [m for m in facts.mounts if m.mount_point == str(_on(root, IMAGE_MOUNT))]
    stores = [] if by_image else _blank_or_ours(facts, _stores(facts))
    wanted = [*_named(stores, "store"), *_named([_volume(facts, volume) for volume in volumes], "spill")]
    mounts, folders = [], [f"{IMAGE_MOUNT}/sparknet"] if by_image else []
    taken = {mounted.mount_point for mounted in facts.mounts}
    for link, label in wanted:
        mount_point = f"/mnt/sparknet/{label}"
        folders.append(f"{mount_point}/spark")
        if str(_on(root, mount_point)) not in taken:
            mounts.append(
                Mount(link=link.name, label=label, mount_point=mount_point, format=not link.file_system)
            )
    return Plan(mounts=tuple(mounts), folders=tuple(folders) or ("/var/lib/sparknet/spark",))


def prepare(host: Host, volumes: Sequence[str]) -> tuple[PurePosixPath, ...]:
    """Mount what is to be mounted; the folders for SPARK_LOCAL_DIRS, made and writable."""
    scripts = host.root / ON_NODE
    facts = parse(host.run(f"bash {quote(str(scripts / 'disk-facts.sh'))}", timeout_seconds=60).stdout)
    todo = plan(facts, volumes, host.root)
    for mount in todo.mounts:
        words = (
            str(scripts / "mount-disk.sh"),
            str(host.root / "dev/disk/by-id" / mount.link),
            mount.label,
            str(_on(host.root, mount.mount_point)),
            "format" if mount.format else "keep",
        )
        host.run("bash " + " ".join(map(quote, words)), timeout_seconds=300)
    folders = tuple(_on(host.root, folder) for folder in todo.folders)
    names = " ".join(quote(str(folder)) for folder in folders)
    made = host.run(
        f'sudo mkdir -p {names} && sudo chown "$(id -un)" {names} && chmod 700 {names}',
        timeout_seconds=60,
        check=False,
    )
    if made.exit_status:
        raise SetupError(
            f"{host.name}: a disk for what spills is dead or full; sparknet-ec2 repair puts another node in "
            f"its place:\n{last_lines(made.stderr)}"
        )
    return folders


_LINK_FIELDS = ("name", "kernel_name", "file_system", "label")


def _mounted(line: str) -> Mounted:
    source, _, rest = line.partition(" on ")
    return Mounted(source=source, mount_point=rest.partition(" type ")[0])


def _on(root: PurePosixPath, path: str) -> PurePosixPath:
    return root / path.lstrip("/")


def _volume(facts: Facts, volume: str) -> Link:
    name = EBS_LINK + volume.replace("-", "")
    for link in facts.links:
        if link.name == name:
            if link.file_system and not link.label.startswith("spill"):
                raise SetupError(
                    f"The volume {volume} holds a {link.file_system} file system that is not SparkNet's "
                    f"(label {link.label!r}); it was left as it is."
                )
            if _has_children(facts, link):
                raise SetupError(f"The volume {volume} has partitions; it was left as it is.")
            return link
    raise SetupError(f"The volume {volume} is not to be seen on the node (no /dev/disk/by-id/{name}).")


def _stores(facts: Facts) -> list[Link]:
    """The type's own disks, by link; udev makes several links a disk, of which the shortest is taken.

    It makes links for partitions as well, which are somebody's.
    """
    models = {block["name"]: block.get("model") or "" for block in facts.blocks}
    found: dict[str, Link] = {}
    for link in sorted(facts.links, key=lambda one: (len(one.name), one.name)):
        is_store = models.get(link.kernel_name, "").strip() == STORE_MODEL or link.name.startswith(STORE_LINK)
        if is_store and not link.name.startswith(EBS_LINK) and not PARTITION.search(link.name):
            found.setdefault(link.kernel_name, link)
    return [found[name] for name in sorted(found)]


def _blank_or_ours(facts: Facts, links: list[Link]) -> list[Link]:
    return [
        link
        for link in links
        if not _has_children(facts, link) and (not link.file_system or link.label.startswith("store"))
    ]


def _has_children(facts: Facts, link: Link) -> bool:
    """Whether the disk is in use as partitions, or as a member of a RAID or an LVM."""
    return any(block["name"] == link.kernel_name and block.get("children") for block in facts.blocks)


def _named(links: list[Link], kind: str) -> list[tuple[Link, str]]:
    """Each with its label: the one it has, or the next that is free."""
    taken = {link.label for link in links}
    free = (f"{kind}{number}" for number in range(1000) if f"{kind}{number}" not in taken)
    return [(link, link.label or next(free)) for link in links]
