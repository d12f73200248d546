"""LaunchSpec: what one instance is to be, after template, override and call were merged and checked as EC2
does.

``resolve`` gives one, or the code and words with which EC2 would refuse. Both RunInstances
(``run_instances.py``) and CreateFleet (``create_fleet.py``) go through it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moto.core.types import Base64EncodedString
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.utils import filter_iam_instance_profiles

from infra.local.calls.cloud import Cloud
from infra.local.models.capacity import CapacityPool, check_type, zones_with
from infra.local.models.published_images import PARAMETERS
from infra.local.models.volumes import VOLUME_TYPES, check_size
from infra.spec import ON_DEMAND, SPOT

ROOT_DISK = {"VolumeSize": 15, "VolumeType": "gp3", "DeleteOnTermination": True}
SSM_PREFIX = "resolve:ssm:"
MOST_USER_DATA_BYTES = 16_384  # before it is encoded
DEFAULT_TYPE = "m1.small"  # EC2's own, for calls that name none
RESERVED_ADDRESSES = range(5)  # of each subnet, by AWS


@dataclass(frozen=True, kw_only=True)
class LaunchSpec:
    """What one instance is to be, with nothing left to look up."""

    image: Any
    instance_type: str
    subnet: Any
    groups: tuple[Any, ...]
    max_price: float | None
    is_spot: bool
    disks: Mapping[str, Mapping[str, Any]]  # device -> Ebs of its mapping
    tags: Mapping[str, Mapping[str, str]]  # resource type -> tags
    parameters: Mapping[str, Any]  # the merged request, for all that needs no look-up

    @property
    def pool(self) -> CapacityPool:
        return CapacityPool(
            self.instance_type, self.subnet.availability_zone, SPOT if self.is_spot else ON_DEMAND
        )


def template_data(backend: Any, reference: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a launch template's version, with the tags EC2 adds. Raises EC2's not-found errors."""
    if not reference:
        return {}
    version = _template_version(backend, reference)
    data = dict(version.data)
    stamp = {
        "aws:ec2launchtemplate:id": version.template.id,
        "aws:ec2launchtemplate:version": str(version.number),
    }
    specification = {"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in stamp.items()]}
    data["TagSpecifications"] = [*data.get("TagSpecifications", []), specification]
    return data


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later layers win, but block devices are merged by device, and tags by resource type and key."""
    result: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            if value is None or value in ("", [], {}):
                continue
            if name == "BlockDeviceMappings":
                value = _merged_devices(result.get(name, []), value)
            elif name == "TagSpecifications":
                value = [*result.get(name, []), *value]
            result[name] = value
    return result


def resolve(cloud: Cloud, backend: Any, parameters: Mapping[str, Any]) -> LaunchSpec:
    """Raises EC2ClientError with the code and words of EC2 for all that cannot be."""
    instance_type = parameters.get("InstanceType") or DEFAULT_TYPE
    check_type(instance_type)
    image = _image(backend, parameters.get("ImageId"))
    _check_key(backend, parameters.get("KeyName"))
    _check_profile(backend, parameters.get("IamInstanceProfile"))
    decode_user_data(parameters.get("UserData"))
    market = parameters.get("InstanceMarketOptions") or {}
    subnet = _subnet(cloud, backend, parameters, instance_type)
    price = (market.get("SpotOptions") or {}).get("MaxPrice")
    spec = LaunchSpec(
        image=image,
        instance_type=instance_type,
        subnet=subnet,
        groups=_groups(backend, parameters, subnet),
        max_price=_max_price(price),
        is_spot=market.get("MarketType") == "spot",
        disks=_disks(image, parameters.get("BlockDeviceMappings") or []),
        tags=tags_by_kind(parameters.get("TagSpecifications") or []),
        parameters=parameters,
    )
    cloud.capacity.check_offered(spec.pool)
    _check_group(cloud, spec)
    _check_disks(backend, spec)
    return spec


def check_addresses(spec: LaunchSpec, count: int) -> None:
    """Raises InsufficientFreeAddressesInSubnet."""
    free = spec.subnet.cidr.num_addresses - len(RESERVED_ADDRESSES) - len(spec.subnet._subnet_ips)
    if count > free:
        raise EC2ClientError(
            "InsufficientFreeAddressesInSubnet",
            f"There are not enough free addresses in subnet '{spec.subnet.id}' to satisfy the requested "
            "number of instances.",
        )


def new_volume(backend: Any, ebs: Mapping[str, Any], zone: str) -> Any:
    """The volume that a mapping's ``Ebs`` asks for. Raises what EC2 says to one that cannot be."""
    return backend.create_volume(
        size=ebs.get("VolumeSize"),
        zone_name=zone,
        snapshot_id=ebs.get("SnapshotId"),
        encrypted=bool(ebs.get("Encrypted")),
        kms_key_id=ebs.get("KmsKeyId"),
        volume_type=ebs.get("VolumeType"),
        iops=ebs.get("Iops"),
        throughput=ebs.get("Throughput"),
    )


def count_of(parameters: Mapping[str, Any], name: str) -> int:
    """The count ``name``, 1 where it is left out. Raises InvalidParameterValue for none at all."""
    given = parameters.get(name)
    count = 1 if given in (None, "") else int(given)
    if count < 1:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({count}) for parameter {name[0].lower()}{name[1:]} is invalid. It must be at least 1.",
        )
    return count


def decode_user_data(value: Any) -> Base64EncodedString | None:
    """As moto keeps it. Raises InvalidUserData.Malformed, and what EC2 says to more than 16 KiB."""
    if not value:
        return None
    text = value.decode() if isinstance(value, bytes) else str(value)
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise EC2ClientError("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from None
    if len(content) > MOST_USER_DATA_BYTES:
        raise EC2ClientError("InvalidParameterValue", f"User data is limited to {MOST_USER_DATA_BYTES} bytes")
    return value if isinstance(value, Base64EncodedString) else Base64EncodedString(text)


def tags_by_kind(specifications: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Resource type -> tags; of two specifications of a type, the later wins key by key."""
    tags: dict[str, dict[str, str]] = {}
    for specification in specifications:
        mine = tags.setdefault(specification["ResourceType"], {})
        mine.update({tag["Key"]: tag.get("Value", "") for tag in specification.get("Tags") or []})
    return tags


def first_interface(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The primary one of the request's network interfaces, empty if it names none."""
    interfaces = parameters.get("NetworkInterfaces") or []
    return next((one for one in interfaces if int(one.get("DeviceIndex") or 0) == 0), {})


def _template_version(backend: Any, reference: Mapping[str, Any]) -> Any:
    wanted, name = reference.get("LaunchTemplateId"), reference.get("LaunchTemplateName")
    found = [
        template
        for template in backend.launch_templates.values()
        if (wanted and template.id == wanted) or (name and template.name == name)
    ]
    if not found and wanted:
        raise EC2ClientError(
            "InvalidLaunchTemplateId.NotFound",
            f"The specified launch template, with template ID {wanted}, does not exist.",
        )
    if not found:
        raise EC2ClientError(
            "InvalidLaunchTemplateName.NotFoundException",
            f"The specified launch template, with template name {name}, does not exist.",
        )
    return found[0].get_version(reference.get("Version") or "$Default")


def _image(backend: Any, wanted: str | None) -> Any:
    if not wanted:
        raise EC2ClientError("MissingParameter", "The request must contain the parameter ImageId")
    if wanted.startswith(SSM_PREFIX):
        parameter = wanted.removeprefix(SSM_PREFIX).partition(":")[0]
        if parameter not in PARAMETERS:
            raise EC2ClientError(
                "InvalidParameterValue", f"Value ({wanted}) for parameter ImageId is invalid."
            )
        wanted = PARAMETERS[parameter]
    return backend.describe_images(ami_ids=[wanted])[0]


def _check_key(backend: Any, name: str | None) -> None:
    if name and name not in backend.key_pairs:
        raise EC2ClientError("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")


def _check_profile(backend: Any, profile: Mapping[str, str] | None) -> None:
    if not profile:
        return
    try:
        filter_iam_instance_profiles(
            backend.account_id, backend.partition, profile.get("Arn"), profile.get("Name")
        )
    except Exception:  # noqa: BLE001 - moto has a class of its own for each way of not finding it
        label, value = ("ARN", profile["Arn"]) if profile.get("Arn") else ("name", profile.get("Name"))
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({value}) for parameter iamInstanceProfile.{label.lower()} is invalid. Invalid IAM "
            f"Instance Profile {label}",
        ) from None


def _check_group(cloud: Cloud, spec: LaunchSpec) -> None:
    name = (spec.parameters.get("Placement") or {}).get("GroupName")
    if name and name not in cloud.placement_groups.of(spec.subnet.ec2_backend.region_name):
        raise EC2ClientError("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")


def _check_disks(backend: Any, spec: LaunchSpec) -> None:
    """Raises what EC2 says to a volume that cannot be, before any instance is made."""
    for ebs in spec.disks.values():
        if ebs.get("VolumeType", "gp2") not in VOLUME_TYPES:
            raise EC2ClientError(
                "InvalidParameterValue", f"Invalid value '{ebs['VolumeType']}' for VolumeType."
            )
        check_size(ebs.get("VolumeType", "gp2"), ebs.get("VolumeSize"))
        volume = new_volume(backend, ebs, spec.subnet.availability_zone)
        del backend.volumes[volume.id]


def _subnet(cloud: Cloud, backend: Any, parameters: Mapping[str, Any], instance_type: str) -> Any:
    wanted = parameters.get("SubnetId") or first_interface(parameters).get("SubnetId")
    if wanted:
        return backend.get_subnet(wanted)
    zone = (parameters.get("Placement") or {}).get("AvailabilityZone")
    defaults = {subnet.availability_zone: subnet for subnet in backend.get_default_subnets().values()}
    if not defaults:
        raise EC2ClientError("VPCIdNotSpecified", "No default VPC for this user")
    if zone:
        if zone not in defaults:
            raise EC2ClientError("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
        return defaults[zone]
    offered = [name for name in zones_with(instance_type, backend.region_name) if name in defaults]
    with_room = [
        name for name in offered if cloud.capacity.free(CapacityPool(instance_type, name, ON_DEMAND)) != 0
    ]
    return defaults[(with_room or offered or sorted(defaults))[0]]


def _groups(backend: Any, parameters: Mapping[str, Any], subnet: Any) -> tuple[Any, ...]:
    wanted = [
        *(parameters.get("SecurityGroupIds") or []),
        *(parameters.get("SecurityGroups") or []),
        *(first_interface(parameters).get("Groups") or []),
    ]
    if not wanted:
        return (backend.get_default_security_group(subnet.vpc_id),)
    groups = []
    for name in dict.fromkeys(wanted):
        group = backend.get_security_group_by_name_or_id(name, subnet.vpc_id)
        if group is None:
            raise EC2ClientError("InvalidGroup.NotFound", f"The security group '{name}' does not exist")
        if group.vpc_id != subnet.vpc_id:
            raise EC2ClientError(
                "InvalidParameter",
                f"Security group {group.id} and subnet {subnet.id} belong to different networks.",
            )
        groups.append(group)
    return tuple(groups)


def _max_price(value: str | float | None) -> float | None:
    if value in (None, ""):
        return None
    try:
        price = float(value)
    except ValueError:
        price = 0.0
    if price <= 0.001:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({value}) for parameter price is invalid. It must be above 0.001.",
        )
    return price


def _disks(image: Any, mappings: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Device -> Ebs; the image's root volume always among them."""
    disks = {image.root_device_name: dict(ROOT_DISK)}
    for mapping in mappings:
        device = mapping["DeviceName"]
        if mapping.get("NoDevice") is not None:
            disks.pop(device, None)
        elif not mapping.get("VirtualName"):  # NVMe instance store is there whether mapped or not
            disks[device] = {**disks.get(device, {}), **(mapping.get("Ebs") or {})}
    for device, ebs in disks.items():
        if ebs.get("VolumeSize") is None and not ebs.get("SnapshotId"):
            raise EC2ClientError(
                "MissingParameter", f"The request must contain the parameter size or snapshotId ({device})"
            )
    return disks


def _merged_devices(below: list[Any], above: list[Any]) -> list[dict[str, Any]]:
    devices = {mapping["DeviceName"]: dict(mapping) for mapping in below}
    for mapping in above:
        name = mapping["DeviceName"]
        ebs = {**(devices.get(name, {}).get("Ebs") or {}), **(mapping.get("Ebs") or {})}
        devices[name] = {**devices.get(name, {}), **mapping, **({"Ebs": ebs} if ebs else {})}
    return list(devices.values())
