"""Volumes: EC2's rules of attaching and detaching, and the folder that is the content of each volume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.block_device import BlockDeviceType
from moto.ec2.models.elastic_block_store import EBSBackend, VolumeAttachment
from moto.ec2.responses.elastic_block_store import ElasticBlockStore

from infra.local.calls.patches import Original, patch

ATTACHABLE = ("running", "stopped", "pending")


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


@patch(EBSBackend, "attach_volume", why="EC2's refusals; the host sees the disk")
def attach_volume(
    original: Original,
    backend: Any,
    volume_id: str,
    instance_id: str,
    device_path: str,
    delete_on_termination: bool = False,
) -> Any:
    volume, instance = backend.get_volume(volume_id), backend.get_instance(instance_id)
    if volume.attachment is not None:
        raise EC2ClientError("VolumeInUse", f"{volume_id} is already attached to an instance")
    if instance.state not in ATTACHABLE:
        raise EC2ClientError("IncorrectState", f"Instance '{instance_id}' is not 'running'.")
    if volume.zone.name != instance.placement.zone:
        raise EC2ClientError(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume_id}' is not in the same availability zone as instance '{instance_id}'",
        )
    if device_path in instance.block_device_mapping:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Invalid value '{device_path}' for unixDevice. Attachment point {device_path} is already in use",
        )
    attachment = original(backend, volume_id, instance_id, device_path, delete_on_termination)
    attachment.delete_on_termination = delete_on_termination
    patch.cloud.lifecycle.machine(instance_id).attach(volume_id, patch.cloud.disks.of(volume_id))
    return attachment


@patch(EBSBackend, "detach_volume", why="the instance may be left out; the host no longer sees the disk")
def detach_volume(
    original: Original, backend: Any, volume_id: str, instance_id: str, device_path: str
) -> Any:
    volume = backend.get_volume(volume_id)
    if volume.attachment is None:
        raise EC2ClientError("IncorrectState", f"Volume '{volume_id}' is in the 'available' state.")
    attached_to = volume.attachment.instance.id
    if instance_id and instance_id != attached_to:
        raise EC2ClientError(
            "InvalidAttachment.NotFound",
            f"The volume '{volume_id}' is not attached to instance '{instance_id}' as device '{device_path}'",
        )
    attachment = original(backend, volume_id, attached_to, device_path or volume.attachment.device)
    patch.cloud.lifecycle.machine(attached_to).detach(volume_id)
    return attachment


@patch(
    ElasticBlockStore, "detach_volume", why="Force pulls the disk from under a file system that is mounted"
)
def detach_by_force(original: Original, response: Any) -> Any:
    volume = response.ec2_backend.get_volume(response._get_param("VolumeId"))
    if response._get_param("Force") and volume.attachment is not None:
        patch.cloud.lifecycle.machine(volume.attachment.instance.id).pull(volume.id)
    return original(response)


@patch(EBSBackend, "delete_volume", why="the content goes with the volume")
def delete_volume(original: Original, backend: Any, volume_id: str) -> Any:
    volume = original(backend, volume_id)
    patch.cloud.disks.remove(volume_id)
    return volume


@patch(ElasticBlockStore, "modify_volume", why="EC2 refuses to shrink a volume")
def modify_volume(original: Original, response: Any) -> Any:
    volume = response.ec2_backend.get_volume(response._get_param("VolumeId"))
    size = response._get_param("Size")
    if size is not None and int(size) < int(volume.size):
        raise EC2ClientError(
            "InvalidParameterValue",
            f"New size cannot be smaller than existing size ({volume.size} GiB).",
        )
    result: ActionResult = original(response)
    patch.cloud.disks.make(volume)
    return result
