"""Template: the launch template that holds what all nodes of a cluster share."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infra.ec2 import tags
from infra.ec2.region import Region
from infra.ec2.tags import ClusterTags, TagList
from infra.errors import SetupError
from infra.spec import Spill

#: What EC2 may not have heard of yet when the first machines are asked for.
JUST_MADE = ("InvalidLaunchTemplateId.NotFound*", "InvalidGroup.NotFound", "InvalidKeyPair.NotFound")
PROVISIONED, IOPS_PER_GIB, GP3_IOPS = ("io1", "io2"), 50, 3000
FIRST_SPILL = "/dev/sdf"
INSTANCE_KINDS = ("instance", "volume", "network-interface")


@dataclass(frozen=True, kw_only=True)
class LaunchData:
    """What every node starts from."""

    image: str
    root_device: str
    key_pair: str
    security_groups: tuple[str, ...]
    user_data: bytes
    spill: Spill
    instance_profile: str = ""
    placement_group: str = ""


def data(launch: LaunchData, cluster_tags: ClusterTags) -> dict[str, Any]:
    """The ``LaunchTemplateData``: tokens for metadata, encrypted disks that die with their node."""
    content: dict[str, Any] = {
        "ImageId": launch.image,
        "KeyName": launch.key_pair,
        "SecurityGroupIds": list(launch.security_groups),
        "UserData": base64.b64encode(launch.user_data).decode(),
        "InstanceInitiatedShutdownBehavior": "terminate",  # the node's own timer can end what it costs
        "MetadataOptions": {
            # a job that fetches URLs it is given cannot be led to the keys of the instance's role
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,  # nor can a container on the node
            "HttpEndpoint": "enabled",
            "InstanceMetadataTags": "disabled",  # EC2 refuses it for tag keys with a colon
        },
        "BlockDeviceMappings": [_root_mapping(launch.root_device), *spill_mappings(launch.spill)],
        "TagSpecifications": cluster_tags.specification(INSTANCE_KINDS),
    }
    if launch.instance_profile:
        content["IamInstanceProfile"] = {"Name": launch.instance_profile}
    if launch.placement_group:
        content["Placement"] = {"GroupName": launch.placement_group}
    return content


def spill_mappings(spill: Spill) -> list[dict[str, Any]]:
    """One mapping a volume, /dev/sdf and on: encrypted, gone with its node."""
    return [
        {
            "DeviceName": f"/dev/sd{chr(ord(FIRST_SPILL[-1]) + index)}",
            "Ebs": {
                "VolumeSize": spill.size_gib,
                "VolumeType": spill.type,
                "Encrypted": True,
                "DeleteOnTermination": True,
                **_iops(spill),
            },
        }
        for index in range(spill.count)
    ]


def _iops(spill: Spill) -> dict[str, int]:
    """What EC2 wants to be told for the types whose speed is bought apart: that of a gp3 volume."""
    if spill.type not in PROVISIONED:
        return {}
    return {"Iops": min(GP3_IOPS, IOPS_PER_GIB * spill.size_gib)}


def _root_mapping(device: str) -> dict[str, Any]:
    """The image's own root volume, as large as it says, but encrypted: the secret is on it."""
    return {
        "DeviceName": device,
        "Ebs": {"VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True},
    }


def name(cluster: str) -> str:
    return f"sparknet-{cluster}"


def find(region: Region, cluster: str) -> str | None:
    """The id of the cluster's template, if it has been made."""
    filters = [*tags.of_cluster(cluster), {"Name": "launch-template-name", "Values": [name(cluster)]}]
    found = region.read("describe_launch_templates", Filters=filters)["LaunchTemplates"]
    return str(found[0]["LaunchTemplateId"]) if found else None


def spill_count(region: Region, cluster: str) -> int:
    """How many volumes for spill the nodes of the cluster came with; 0 if its template is gone."""
    made = find(region, cluster)
    if made is None:
        return 0
    answer = region.read("describe_launch_template_versions", LaunchTemplateId=made, Versions=["$Latest"])
    mappings = answer["LaunchTemplateVersions"][0]["LaunchTemplateData"].get("BlockDeviceMappings", [])
    return sum(
        one["DeviceName"] >= FIRST_SPILL for one in mappings if one["DeviceName"].startswith("/dev/sd")
    )


def change(region: Region, cluster: str, user_data: Callable[[bytes], bytes], *, tags: TagList) -> None:
    """Nodes made from now on get other user data, and ``tags`` in the place of those of the same keys."""
    made = find(region, cluster)
    if made is None:
        return
    answer = region.read("describe_launch_template_versions", LaunchTemplateId=made, Versions=["$Latest"])
    [latest] = answer["LaunchTemplateVersions"]
    content = dict(latest["LaunchTemplateData"])
    content["UserData"] = base64.b64encode(user_data(base64.b64decode(content["UserData"]))).decode()
    keys = {tag["Key"] for tag in tags}
    content["TagSpecifications"] = [
        {**kind, "Tags": [*(tag for tag in kind["Tags"] if tag["Key"] not in keys), *tags]}
        for kind in content.get("TagSpecifications", [])
    ]
    if content != latest["LaunchTemplateData"]:
        region.change("create_launch_template_version", LaunchTemplateId=made, LaunchTemplateData=content)


def make(region: Region, launch: LaunchData, cluster_tags: ClusterTags) -> str:
    """Make the cluster's template and return its id; that of an interrupted launch is found again."""
    content = data(launch, cluster_tags)
    answer = region.change(
        "create_launch_template",
        LaunchTemplateName=name(cluster_tags.cluster),
        LaunchTemplateData=content,
        TagSpecifications=cluster_tags.specification(("launch-template",)),
        ClientToken=cluster_tags.token("template", content),
        tolerate=("InvalidLaunchTemplateName.AlreadyExistsException",),
    )
    if answer is not None:
        return str(answer["LaunchTemplate"]["LaunchTemplateId"])
    found = find(region, cluster_tags.cluster)
    if found is None:
        raise SetupError(
            f"There is a launch template {name(cluster_tags.cluster)} that is not this cluster's; delete it, "
            "or launch with another --name."
        )
    return found
