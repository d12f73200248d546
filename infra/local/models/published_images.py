"""The machine images this cloud has, and the public parameters that lead to them.

moto reads its images from the file named by ``MOTO_AMIS_PATH`` when it is imported: ``write`` must run
before that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

AMAZON, CANONICAL = "898082745236", "099720109477"


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image, the same in every region."""

    id: str
    name: str
    owner: str
    created: str
    parameters: tuple[str, ...]  # of Systems Manager, whose value is the id


def _deep_learning(release: str, *names: str) -> tuple[str, ...]:
    prefix = "/aws/service/deeplearning/ami/x86_64"
    return tuple(f"{prefix}/{name}-ubuntu-{release}/latest/ami-id" for name in names)


def _ubuntu(release: str, volume: str) -> tuple[str, ...]:
    return (f"/aws/service/canonical/ubuntu/server/{release}/stable/current/amd64/hvm/{volume}/ami-id",)


IMAGES = (
    Image(
        id="ami-0d1a51a51a51a2204",
        name="Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) 20261101",
        owner=AMAZON,
        created="2026-11-01T00:00:00.000Z",
        parameters=_deep_learning("22.04", "base-oss-nvidia-driver-gpu", "base-oss-nvidia-driver"),
    ),
    Image(
        id="ami-0d1a51a51a51a2404",
        name="Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20261101",
        owner=AMAZON,
        created="2026-11-01T00:00:00.000Z",
        parameters=_deep_learning("24.04", "base-oss-nvidia-driver-gpu", "base-oss-nvidia-driver"),
    ),
    Image(
        id="ami-0b0b0b0b0b0b02204",
        name="ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-20261015",
        owner=CANONICAL,
        created="2026-10-15T00:00:00.000Z",
        parameters=_ubuntu("22.04", "ebs-gp2"),
    ),
    Image(
        id="ami-0b0b0b0b0b0b02404",
        name="ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261015",
        owner=CANONICAL,
        created="2026-10-15T00:00:00.000Z",
        parameters=_ubuntu("24.04", "ebs-gp3"),
    ),
)

PARAMETERS = {parameter: image.id for image in IMAGES for parameter in image.parameters}


def write(path: Path) -> None:
    """Write the images as moto wants them."""
    rows = [
        {
            "ami_id": image.id,
            "name": image.name,
            "description": image.name,
            "owner_id": image.owner,
            "public": True,
            "virtualization_type": "hvm",
            "architecture": "x86_64",
            "state": "available",
            "platform": None,
            "image_type": "machine",
            "hypervisor": "xen",
            "root_device_name": "/dev/sda1",
            "root_device_type": "ebs",
            "sriov": "simple",
            "creation_date": image.created,
        }
        for image in IMAGES
    ]
    path.write_text(json.dumps(rows))
