"""Volumes: the folder that is the content of each, and what is attached to an instance from its launch on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.block_device import BlockDeviceType
from moto.ec2.models.elastic_block_store import VolumeAttachment

from infra import aws

VOLUME_TYPES = tuple(aws.volume_sizes())


def check_size(kind: str, size: object) -> None:
    """Raises what EC2 says to a volume of ``size`` GiB that its ``kind`` cannot have; None is another's."""
    if size is None:
        return
    least, most = aws.volume_sizes()[kind]
    if int(str(size)) < least:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Volume of {size}GiB is too small for volume type {kind}; minimum is {least}GiB.",
        )
    if int(str(size)) > most:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Volume of {size}GiB is too large for volume type {kind}; maximum is {most}GiB.",
        )


class VolumeFolders:
    """What is on each volume: a folder per volume, made with it and removed with it."""

    def __init__(self, folder: Path, *, are_real: bool) -> None:
        self._folder, self._are_real = folder, are_real

    def of(self, volume_id: str) -> Path:
        return self._folder / volume_id

    def make(self, volume: Any) -> None:
        if not self._are_real:
            return
        folder = self.of(volume.id)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        facts = {
            "model": "Amazon Elastic Block Store",
            "serial": volume.id.replace("-", ""),
            "size_gib": int(volume.size),
        }
        (folder / "disk.json").write_text(json.dumps(facts))

    def remove(self, volume_id: str) -> None:
        shutil.rmtree(self.of(volume_id), ignore_errors=True)


def attach_at_launch(instance: Any, device: str, volume: Any, *, delete_on_termination: bool) -> None:
    """Attach a volume that was just made for an instance that was just made: nothing to check."""
    volume.attachment = VolumeAttachment(volume, instance, device, "attached")  # type: ignore[abstract]
    volume.attachment.delete_on_termination = delete_on_termination
    instance.block_device_mapping[device] = BlockDeviceType(
        volume_id=volume.id,
        status=volume.status,
        size=volume.size,
        attach_time=utcnow(),
        delete_on_termination=delete_on_termination,
    )


def release(backend: Any, instance: Any) -> None:
    """What EC2 does with the volumes of a terminated instance: delete some, detach the others."""
    for device, mapping in instance.get_block_device_mapping:
        volume = backend.volumes.get(mapping.volume_id)
        del instance.block_device_mapping[device]
        if volume is None:
            continue
        volume.attachment = None
        if mapping.delete_on_termination:
            backend.delete_volume(volume.id)
