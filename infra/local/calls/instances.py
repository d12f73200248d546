"""Terminate, stop, start, reboot: the lifecycle changes the state, once the machine has followed."""

from __future__ import annotations

from typing import Any

from moto.ec2.exceptions import InvalidInstanceIdError
from moto.ec2.models.instances import Instance, InstanceBackend

from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch


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


@patch(InstanceBackend, "get_instance", why="one look-up instead of a walk over all instances")
def get_instance(cloud: Cloud, _original: Original, backend: Any, instance_id: str) -> Any:
    instance = cloud.instances.find(instance_id)
    if instance.ec2_backend is not backend:
        raise InvalidInstanceIdError(instance_id)
    return instance
