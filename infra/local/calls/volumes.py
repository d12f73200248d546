"""Volumes: EC2's rules of making, attaching, detaching and changing them; hosts see what is attached."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_block_store import EBSBackend, Volume
from moto.ec2.responses.elastic_block_store import ElasticBlockStore

from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch
from infra.local.models.volumes import VOLUME_TYPES, check_size

ATTACHABLE = ("running", "stopped", "pending")


@patch(
    ElasticBlockStore, "create_volume", why="a client token makes the call idempotent; a volume has a folder"
)
def create_volume(cloud: Cloud, original: Original, response: Any) -> Any:
    def work() -> Any:
        _check_volume(response)
        result = original(response)
        cloud.volumes.make(result.result)
        return result

    return cloud.tokens.once(response, "CreateVolume", work)


@patch(EBSBackend, "attach_volume", why="EC2's refusals; the host sees the disk")
def attach_volume(
    cloud: Cloud,
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
    cloud.instances.machine(instance_id).attach(volume_id, cloud.volumes.of(volume_id))
    return attachment


@patch(EBSBackend, "detach_volume", why="the instance may be left out; the host no longer sees the disk")
def detach_volume(
    cloud: Cloud, original: Original, backend: Any, volume_id: str, instance_id: str, device_path: str
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
    cloud.instances.machine(attached_to).detach(volume_id)
    return attachment


@patch(
    ElasticBlockStore, "detach_volume", why="Force pulls the disk from under a file system that is mounted"
)
def detach_by_force(cloud: Cloud, original: Original, response: Any) -> Any:
    volume = response.ec2_backend.get_volume(response._get_param("VolumeId"))
    if response._get_param("Force") and volume.attachment is not None:
        cloud.instances.machine(volume.attachment.instance.id).force_detach(volume.id)
    return original(response)


@patch(EBSBackend, "delete_volume", why="the content goes with the volume")
def delete_volume(cloud: Cloud, original: Original, backend: Any, volume_id: str) -> Any:
    volume = original(backend, volume_id)
    cloud.volumes.remove(volume_id)
    return volume


@patch(ElasticBlockStore, "modify_volume", why="EC2 refuses to shrink a volume")
def modify_volume(cloud: Cloud, original: Original, response: Any) -> Any:
    volume = response.ec2_backend.get_volume(response._get_param("VolumeId"))
    size = response._get_param("Size")
    if size is not None and int(size) < int(volume.size):
        raise EC2ClientError(
            "InvalidParameterValue",
            f"New size cannot be smaller than existing size ({volume.size} GiB).",
        )
    check_size(response._get_param("VolumeType") or volume.volume_type, size)
    result: ActionResult = original(response)
    cloud.volumes.make(volume)
    return result


def _check_volume(response: Any) -> None:
    zone, kind = response._get_param("AvailabilityZone"), response._get_param("VolumeType") or "gp2"
    known = [one.name for one in response.ec2_backend.zones.get(response.region, [])]
    if zone not in known:
        raise EC2ClientError("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")
    if kind not in VOLUME_TYPES:
        raise EC2ClientError("UnknownVolumeType", f"Unsupported volume type '{kind}' for volume creation.")
    check_size(kind, response._get_param("Size"))


GP3_THROUGHPUT = 125  # MiB a second, unless more was bought


@patch(Volume, "__init__", why="a gp3 volume shows the throughput that it has")
def init_volume(_cloud: Cloud, original: Original, volume: Any, *arguments: Any, **named: Any) -> None:
    original(volume, *arguments, **named)
    if volume.volume_type == "gp3" and not volume.throughput:
        volume.throughput = GP3_THROUGHPUT
