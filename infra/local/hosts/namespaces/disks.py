"""Disks: how a block device looks to its host: its name, its links, and what the kernel says of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.local.hosts.namespaces.blocks import Block

EBS_MODEL, STORE_MODEL = "Amazon Elastic Block Store", "Amazon EC2 NVMe Instance Storage"

COPIED = (
    "size", "ro", "removable", "hidden", "alignment_offset", "discard_alignment",
    "queue/logical_block_size", "queue/physical_block_size", "queue/minimum_io_size",
    "queue/optimal_io_size", "queue/discard_granularity", "queue/discard_max_bytes",
    "queue/discard_zeroes_data", "queue/scheduler", "queue/nr_requests", "queue/read_ahead_kb",
    "queue/write_same_max_bytes", "queue/zoned", "queue/dax",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A block device under the name and identity that it has on a Nitro instance."""

    block: Block
    name: str  # nvme1n1
    model: str
    serial: str

    @property
    def number(self) -> int:
        return self.block.number

    @property
    def links(self) -> tuple[str, ...]:
        """Names below /dev/disk/by-id, as udev makes them: with and without the namespace's number."""
        link = f"nvme-{self.model.replace(' ', '_')}_{self.serial}"
        return link, f"{link}_1"

    @property
    def attributes(self) -> Mapping[str, str]:
        """Files of /sys/block/NAME: what lsblk shows, and mkfs looks at."""
        real = Path("/sys/block") / Path(self.block.path).name
        copied = {name: _read(real / name) for name in COPIED}
        named = {
            "dev": f"{os.major(self.number)}:{os.minor(self.number)}",
            "device/model": self.model,
            "device/serial": self.serial,
            "queue/rotational": "0",
        }
        return {**{name: text for name, text in copied.items() if text is not None}, **named}


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
