"""Terminate, stop, start, reboot: the lifecycle changes the state, once the machine has followed."""

from __future__ import annotations

from typing import Any

from moto.ec2.exceptions import EC2ClientError, InvalidInstanceIdError
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.responses.instances import InstanceResponse

from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch
from infra.local.models.capacity import check_type

#: Attributes of ModifyInstanceAttribute that a running machine cannot change.
WHILE_STOPPED = (
    "InstanceType",
    "Kernel",
    "Ramdisk",
    "UserData",
    "EbsOptimized",
    "EnaSupport",
    "SriovNetSupport",
)


@patch(Instance, "terminate", why="terminated only once the machine is gone")
def terminate(cloud: Cloud, _original: Original, instance: Any) -> Any:
    return cloud.lifecycle.terminate(instance)


@patch(Instance, "stop", why="stopped only once the machine is")
def stop(cloud: Cloud, _original: Original, instance: Any) -> Any:
    return cloud.lifecycle.stop(instance)


@patch(Instance, "start", why="running only once the machine answers")
def start(cloud: Cloud, _original: Original, instance: Any) -> Any:
    return cloud.lifecycle.start(instance)


@patch(Instance, "reboot", why="the machine reboots")
def reboot(cloud: Cloud, _original: Original, instance: Any) -> None:
    cloud.lifecycle.reboot(instance)


@patch(
    InstanceResponse, "modify_instance_attribute", why="what a machine is made of changes while it is stopped"
)
def modify_instance_attribute(_cloud: Cloud, original: Original, response: Any) -> Any:
    instance = response.ec2_backend.get_instance(response._get_param("InstanceId"))
    named = response._get_param("Attribute") or ""
    asked = [one for one in WHILE_STOPPED if response._get_param(one) is not None or _is_same(named, one)]
    if asked and instance.state != "stopped":
        raise EC2ClientError(
            "IncorrectInstanceState", f"The instance '{instance.id}' is not in the 'stopped' state."
        )
    if "InstanceType" in asked:
        check_type((response._get_param("InstanceType") or {}).get("Value") or response._get_param("Value"))
    return original(response)


def _is_same(attribute: str, name: str) -> bool:
    """Whether ``attribute`` of the older form (instanceType) is ``name`` of the newer."""
    return attribute.lower() == name.lower()


@patch(InstanceBackend, "get_instance", why="one look-up instead of a walk over all instances")
def get_instance(cloud: Cloud, _original: Original, backend: Any, instance_id: str) -> Any:
    instance = cloud.instances.find(instance_id)
    if instance.ec2_backend is not backend:
        raise InvalidInstanceIdError(instance_id)
    return instance
