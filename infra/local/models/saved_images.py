"""CreateImage, CopyImage, DeregisterImage: what is on the root disk, kept for hosts that start from it.

``Machine.save`` writes what is on a machine's root disk to the folder of the image, and a machine whose facts
name that folder begins with a copy of it.
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateImage.html
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.amis import AmiBackend
from moto.ec2.responses.amis import AmisResponse

from infra.local.calls.launch_spec import tags_by_kind
from infra.local.calls.patches import Original, patch


class SavedImages:
    """A folder an image; images that AWS publishes have none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, image_id: str) -> Path | None:
        folder = self._folder / image_id
        return folder if folder.is_dir() else None

    def place_for(self, image_id: str) -> Path:
        folder = self._folder / image_id
        folder.mkdir(parents=True)
        return folder

    def copy(self, source_id: str, image_id: str) -> None:
        source = self.of(source_id)
        if source is not None:
            shutil.copytree(source, self._folder / image_id, symlinks=True)

    def remove(self, image_id: str) -> None:
        shutil.rmtree(self._folder / image_id, ignore_errors=True)


@patch(AmiBackend, "create_image", why="names are unique, snapshots have tags, the root disk is kept")
def create_image(
    original: Original,
    backend: Any,
    instance_id: str,
    name: str,
    description: str,
    tag_specifications: list[dict[str, Any]],
) -> Any:
    if any(one.name == name and one.owner_id == backend.account_id for one in backend.amis.values()):
        raise EC2ClientError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by another AMI")
    machine = patch.cloud.lifecycle.machine(instance_id)
    image = original(backend, instance_id, name, description, [])
    _tag(image, tag_specifications)
    image.root_device_type = "ebs"
    if patch.cloud.has_hosts:
        machine.save(patch.cloud.saved.place_for(image.id))
    return image


@patch(AmisResponse, "copy_image", why="a client token makes it idempotent, copies have tags and content")
def copy_image(_original: Original, response: Any) -> ActionResult:
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
        patch.cloud.saved.copy(source, image.id)
        return ActionResult({"ImageId": image.id})

    return patch.cloud.tokens.once(response, "CopyImage", work)  # type: ignore[no-any-return]


@patch(AmiBackend, "deregister_image", why="the content goes with the image")
def deregister_image(original: Original, backend: Any, ami_id: str) -> None:
    original(backend, ami_id)
    patch.cloud.saved.remove(ami_id)


def _tag(image: Any, specifications: list[dict[str, Any]]) -> None:
    of_kind = tags_by_kind(specifications)
    image.add_tags(of_kind.get("image", {}))
    image.ebs_snapshot.add_tags(of_kind.get("snapshot", {}))
