"""CreateImage, CopyImage, DeregisterImage: what is on the root disk, kept for hosts that start from it.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateImage.html
"""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.amis import AmiBackend
from moto.ec2.responses.amis import AmisResponse

from infra.local.calls.cloud import Cloud
from infra.local.calls.launch_spec import tags_by_kind
from infra.local.calls.patches import Original, patch


@patch(AmiBackend, "create_image", why="names are unique, snapshots have tags, the root disk is kept")
def create_image(
    cloud: Cloud,
    original: Original,
    backend: Any,
    instance_id: str,
    name: str,
    description: str,
    tag_specifications: list[dict[str, Any]],
) -> Any:
    if any(one.name == name and one.owner_id == backend.account_id for one in backend.amis.values()):
        raise EC2ClientError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by another AMI")
    machine = cloud.instances.machine(instance_id)
    image = original(backend, instance_id, name, description, [])
    _tag(image, tag_specifications)
    image.root_device_type = "ebs"
    if cloud.has_hosts:
        machine.save(cloud.saved_images.place_for(image.id))
    return image


@patch(AmiBackend, "describe_images", why="images show that machines of them have enhanced networking")
def describe_images(_cloud: Cloud, original: Original, backend: Any, *arguments: Any, **named: Any) -> Any:
    found = original(backend, *arguments, **named)
    for image in found:
        image.ena_support = True
    return found


@patch(AmisResponse, "copy_image", why="a client token makes it idempotent, copies have tags and content")
def copy_image(cloud: Cloud, _original: Original, response: Any) -> ActionResult:
    backend = response.ec2_backend

    def work() -> ActionResult:
        response.error_on_dryrun()
        source = response._get_param("SourceImageId")
        image = backend.copy_image(
            source,
            response._get_param("SourceRegion"),
            response._get_param("Name"),
            response._get_param("Description"),
        )
        _tag(image, response._get_param("TagSpecifications", []))
        image.root_device_type = "ebs"
        cloud.saved_images.copy(source, image.id)
        return ActionResult({"ImageId": image.id})

    return cloud.tokens.once(response, "CopyImage", work)


@patch(AmiBackend, "deregister_image", why="the content goes with the image")
def deregister_image(cloud: Cloud, original: Original, backend: Any, ami_id: str) -> None:
    original(backend, ami_id)
    cloud.saved_images.remove(ami_id)


def _tag(image: Any, specifications: list[dict[str, Any]]) -> None:
    of_kind = tags_by_kind(specifications)
    image.add_tags(of_kind.get("image", {}))
    image.ebs_snapshot.add_tags(of_kind.get("snapshot", {}))
