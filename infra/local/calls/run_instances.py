"""RunInstances: instances made of what ``launch_spec.py`` resolved, each with its disks, its tags and its
machine.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
"""

from __future__ import annotations

import base64
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.responses.instances import InstanceResponse

from infra.local.calls.cloud import Cloud
from infra.local.calls.launch_spec import (
    LaunchSpec,
    check_addresses,
    count_of,
    decode_user_data,
    first_interface,
    merged,
    new_volume,
    resolve,
    template_data,
)
from infra.local.calls.patches import Original, patch
from infra.local.hosts.machine import Machine, MachineFacts
from infra.local.models import spot_request, volumes

NO_STORE: dict[str, Any] = {"Disks": []}


def make(
    cloud: Cloud,
    backend: Any,
    spec: LaunchSpec,
    count: int,
    *,
    fleet_id: str | None = None,
    request: spot_request.SpotRequest | None = None,
) -> Any:
    """A reservation of ``count`` new instances, booting. The pool was asked before.

    A spot instance is that of ``request``, or gets a request of its own.
    """
    reservation = _reserve(backend, spec, count)
    for index, instance in enumerate(reservation.instances):
        instance.ami_launch_index, instance.ena_support = index, True
        instance.placement.group_name = (spec.parameters.get("Placement") or {}).get("GroupName", "")
        if fleet_id:
            instance.add_tags({"aws:ec2:fleet-id": fleet_id})
        _give_disks(cloud, backend, instance, spec)
        for interface in instance.nics.values():
            interface.delete_on_termination = True
            interface.add_tags(dict(spec.tags.get("network-interface", {})))
        instance.spot_instance_request_id = None
        if request is not None:
            request.fulfil(instance)
        elif spec.is_spot:
            spot_request.request_for(
                instance, spec.max_price, spec.tags.get("spot-instances-request", {}), fleet_id
            )
        machine = cloud.machine_for(_facts(cloud, instance, spec))
        _show_disks(cloud, instance, machine)
        cloud.lifecycle.begin(instance, machine, spec.pool)
        if profile := spec.parameters.get("IamInstanceProfile"):
            backend.associate_iam_instance_profile(
                instance.id,
                iam_instance_profile_name=profile.get("Name"),
                iam_instance_profile_arn=profile.get("Arn"),
            )
    return reservation


@patch(InstanceResponse, "run_instances", why="templates honoured, capacity, quotas, prices, tokens, hosts")
def run_instances(cloud: Cloud, _original: Original, response: Any) -> ActionResult:
    backend, request = response.ec2_backend, dict(response._get_params())

    def work() -> ActionResult:
        spec = resolve(
            cloud, backend, merged(template_data(backend, request.get("LaunchTemplate") or {}), request)
        )
        least, most = count_of(request, "MinCount"), count_of(request, "MaxCount")
        if least > most:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Value ({least}) for parameter minCount is invalid. It must be 1 to maxCount.",
            )
        cloud.capacity.check_price(spec.pool, spec.max_price)
        count = cloud.capacity.available(spec.pool, most, at_least=least)
        check_addresses(spec, count)
        response.error_on_dryrun()
        return ActionResult(make(cloud, backend, spec, count))

    return cloud.tokens.once(response, "RunInstances", work)


def _reserve(backend: Any, spec: LaunchSpec, count: int) -> Any:
    """moto's own instances, without what it would add by itself: a root volume of 8 GiB, template and all."""
    parameters = spec.parameters
    interface = first_interface(parameters)
    return backend.run_instances(
        spec.image.id,
        count,
        decode_user_data(parameters.get("UserData")),
        [],
        instance_type=spec.instance_type,
        is_instance_type_default=False,
        region_name=backend.region_name,
        subnet_id=spec.subnet.id,
        security_group_ids=list(spec.groups),
        key_name=parameters.get("KeyName"),
        private_ip=parameters.get("PrivateIpAddress") or interface.get("PrivateIpAddress"),
        associate_public_ip=interface.get("AssociatePublicIpAddress"),
        tags={"instance": dict(spec.tags.get("instance", {}))},
        block_device_mappings=[],
        metadata_options=parameters.get("MetadataOptions") or {},
        instance_initiated_shutdown_behavior=parameters.get("InstanceInitiatedShutdownBehavior"),
        client_token=parameters.get("ClientToken"),
        monitoring_state="enabled" if (parameters.get("Monitoring") or {}).get("Enabled") else "disabled",
        ebs_optimized=bool(parameters.get("EbsOptimized")),
        disable_api_termination=bool(parameters.get("DisableApiTermination")),
        lifecycle="spot" if spec.is_spot else None,
    )


def _give_disks(cloud: Cloud, backend: Any, instance: Any, spec: LaunchSpec) -> None:
    for device, ebs in spec.disks.items():
        volume = new_volume(backend, ebs, spec.subnet.availability_zone)
        volume.add_tags(dict(spec.tags.get("volume", {})))
        cloud.volumes.make(volume)
        keep = ebs.get("DeleteOnTermination") is False
        volumes.attach_at_launch(instance, device, volume, delete_on_termination=not keep)


def _show_disks(cloud: Cloud, instance: Any, machine: Machine) -> None:
    """The host sees every volume but its root."""
    for device, mapping in instance.get_block_device_mapping:
        if device != instance.root_device_name:
            machine.attach(mapping.volume_id, cloud.volumes.of(mapping.volume_id))


def _facts(cloud: Cloud, instance: Any, spec: LaunchSpec) -> MachineFacts:
    store = INSTANCE_TYPES[spec.instance_type].get("InstanceStorageInfo") or NO_STORE
    user_data = decode_user_data(spec.parameters.get("UserData"))
    return MachineFacts(
        instance_id=instance.id,
        instance_type=spec.instance_type,
        private_address=instance.private_ip,
        user_data=base64.b64decode(str(user_data)) if user_data else None,
        metadata_url=cloud.metadata_url(instance.id),
        instance_store_gb=tuple(disk["SizeInGB"] for disk in store["Disks"] for _ in range(disk["Count"])),
        image=cloud.saved_images.of(spec.image.id),
    )
