"""Images: the machine image the nodes start from: one of our own that fits, or the newest that AWS publishes.

An image of our own, its snapshots and its copies in other regions carry one generation in their tags, from
the calls that make them: that is how all of it is found again, whatever happened in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.ec2 import tags
from infra.ec2.region import LISTED_SECONDS, ApiError, Region
from infra.ec2.tags import TagList
from infra.errors import DeadlineExceeded, Leftovers, SetupError, UsageError
from infra.polling import Pending, poll

#: The Deep Learning Base image (NVIDIA driver and CUDA, no framework), under both of its published names.
PARAMETERS = (
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id",
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-ubuntu-22.04/latest/ami-id",
)
CONTENT_HASH = "sparknet:recipe"  # bootstrap.content_hash of what is installed on it
SOURCE = "sparknet:source"  # the image it was made from
VERSIONS = "sparknet:versions"  # "python 3.11.7, torch 2.9.0"
AVAILABLE, PENDING = "available", "pending"
REMOVE_SECONDS = 120.0
OURS: list[dict[str, object]] = [{"Name": "tag-key", "Values": [CONTENT_HASH]}]


@dataclass(frozen=True, kw_only=True)
class Image:
    """A machine image, and the device its root volume goes to. ``note`` says why it was chosen."""

    id: str
    name: str
    root_device: str
    root_gib: int = 0
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class OwnImage:
    """An image that ``image build`` made."""

    id: str
    name: str
    region: str
    state: str
    created: str  # ISO 8601
    generation: str
    recipe: str  # the content hash; `image list --json` and the tag have always called it so
    source: str
    versions: str
    owner: str
    root_device: str
    size_gib: int
    snapshots: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A snapshot of one of our images; it may have outlived it."""

    id: str
    generation: str
    created: str  # ISO 8601
    size_gib: int


def find(region: Region, wanted: str, *, content_hash: str = "") -> Image:
    """The image ``wanted``; if that is empty, the newest of our own with ``content_hash``; else the newest
    that AWS publishes.

    Raises UsageError if the image does not exist, is not for x86_64, or has no root volume.
    """
    fitting = _fitting(region, content_hash) if content_hash and not wanted else None
    if fitting:
        return Image(
            id=fitting.id,
            name=fitting.name,
            root_device=fitting.root_device,
            root_gib=fitting.size_gib,
            note=f"The nodes start from {fitting.name} ({fitting.id}), built {fitting.created[:16]}; "
            "--fresh takes the image of AWS instead.",
        )
    found = region.read("describe_images", ImageIds=[wanted or _newest(region)])["Images"]
    if not found:
        raise UsageError(
            f"There is no image {wanted} in {region.name}; leave out --ami to take the newest fitting one."
        )
    image = found[0]
    if image.get("Architecture", "x86_64") != "x86_64":
        raise UsageError(
            f"The image {image['ImageId']} is for {image['Architecture']}; the nodes are x86_64."
        )
    root = image.get("RootDeviceName") or "/dev/sda1"
    disks = {one["DeviceName"]: one.get("Ebs", {}) for one in image.get("BlockDeviceMappings", [])}
    return Image(
        id=image["ImageId"],
        name=image.get("Name", ""),
        root_device=root,
        root_gib=disks.get(root, {}).get("VolumeSize", 0),
    )


def own(region: Region, *, tag: str = CONTENT_HASH, value: str = "") -> list[OwnImage]:
    """Our own images of the region, the newest first; with ``value`` only those whose ``tag`` it is."""
    filters = [{"Name": f"tag:{tag}", "Values": [value]}] if value else OURS
    found = region.pages("describe_images", "Images", Owners=["self"], Filters=filters)
    images = [read_image(region, one) for one in found]
    return sorted(images, key=lambda one: (one.created, one.name), reverse=True)


def snapshots(region: Region) -> list[Snapshot]:
    """The snapshots of all our images of the region, those included that are gone."""
    return _snapshots(region, CONTENT_HASH)


def create(region: Region, instance_id: str, name: str, described: Mapping[str, str]) -> OwnImage:
    """Ask for an image of a stopped instance. ``described`` are its tags, and those of its snapshots."""
    region.change(
        "create_image",
        InstanceId=instance_id,
        Name=name,
        Description=described.get(VERSIONS, ""),
        TagSpecifications=_specification(name, described),
        tolerate=("InvalidAMIName.Duplicate",),  # an earlier attempt of this very call
    )
    return _made(region, name, described)


def copy(region: Region, target: Region, image: OwnImage, described: Mapping[str, str]) -> OwnImage:
    """Ask for a copy of ``image`` (of ``region``) in another region, encrypted there as here."""
    target.change(
        "copy_image",
        SourceImageId=image.id,
        SourceRegion=region.name,
        Name=image.name,
        Description=image.versions,
        Encrypted=True,
        ClientToken=f"{image.generation}-{target.name}",
        TagSpecifications=_specification(image.name, described),
    )
    return _made(target, image.name, described)


def wait_available(
    region: Region, image: OwnImage, *, deadline_seconds: float, poll_seconds: float
) -> OwnImage:
    """Wait until it can be launched. Raises SetupError if EC2 gives up, DeadlineExceeded."""

    def check() -> OwnImage | Pending:
        found = own(region, tag=tags.GENERATION, value=image.generation)
        state = found[0].state if found else PENDING
        if state == AVAILABLE:
            return found[0]
        where = f"{image.id} in {region.name}"
        if state != PENDING:
            raise SetupError(f"EC2 could not make the image {where}: it is {state}.")
        return Pending(
            lambda: DeadlineExceeded(f"The image {where} is still {state} after {deadline_seconds:g} s.")
        )

    return poll(check, deadline_seconds=deadline_seconds, every=poll_seconds, sleep=region.sleep)


def remove(region: Region, generation: str, *, poll_seconds: float = 1.0) -> list[str]:
    """Remove the images of ``generation`` and their snapshots; the ids of what there was. Raises
    Leftovers.
    """
    seen: dict[str, None] = {}  # a set that keeps the order

    def check() -> list[str] | Pending:
        images = own(region, tag=tags.GENERATION, value=generation)
        snapshots = [one.id for one in _snapshots(region, tags.GENERATION, generation)]
        left = [*(one.id for one in images), *snapshots]
        if not left:
            return list(seen)
        seen.update(dict.fromkeys(left))
        for one in images:
            region.change("deregister_image", ImageId=one.id, tolerate=("InvalidAMIID.*",))
        for snapshot in snapshots:  # refused while its image is there: it goes at a later look
            region.change("delete_snapshot", SnapshotId=snapshot, tolerate=("InvalidSnapshot.*",))
        return Pending(
            lambda: Leftovers(f"Still in {region.name}: {', '.join(left)}; delete the image again.")
        )

    return poll(check, deadline_seconds=REMOVE_SECONDS, every=poll_seconds, sleep=region.sleep)


def _fitting(region: Region, content_hash: str) -> OwnImage | None:
    found = own(region, value=content_hash)
    return next((one for one in found if one.state == AVAILABLE), None)


def _made(region: Region, name: str, described: Mapping[str, str]) -> OwnImage:
    missing = SetupError(f"EC2 accepted the image {name} in {region.name}, but does not list it.")

    def check() -> OwnImage | Pending:
        found = own(region, tag=tags.GENERATION, value=described[tags.GENERATION])
        return found[0] if found else Pending(lambda: missing)

    return poll(check, deadline_seconds=LISTED_SECONDS, every=0.5, sleep=region.sleep)


def _snapshots(region: Region, tag: str, value: str = "") -> list[Snapshot]:
    chosen = {"Name": f"tag:{tag}", "Values": [value]} if value else {"Name": "tag-key", "Values": [tag]}
    found = region.pages("describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=[chosen])
    return [
        Snapshot(
            id=one["SnapshotId"],
            generation=tags.as_dict(one.get("Tags")).get(tags.GENERATION, ""),
            created=one["StartTime"].isoformat(),
            size_gib=one.get("VolumeSize", 0),
        )
        for one in found
    ]


def _specification(name: str, described: Mapping[str, str]) -> list[dict[str, object]]:
    pairs: TagList = [{"Key": key, "Value": value} for key, value in {"Name": name, **described}.items()]
    return [{"ResourceType": kind, "Tags": pairs} for kind in ("image", "snapshot")]


def read_image(region: Region, one: dict[str, Any]) -> OwnImage:
    known = tags.as_dict(one.get("Tags"))
    disks = [mapping["Ebs"] for mapping in one.get("BlockDeviceMappings", []) if "Ebs" in mapping]
    return OwnImage(
        id=one["ImageId"],
        name=one.get("Name", ""),
        region=region.name,
        state=one.get("State", PENDING),
        created=known.get(tags.CREATED, "") or str(one.get("CreationDate", "")),
        generation=known.get(tags.GENERATION, ""),
        recipe=known.get(CONTENT_HASH, ""),
        source=known.get(SOURCE, ""),
        versions=known.get(VERSIONS, ""),
        owner=known.get(tags.OWNER, ""),
        root_device=one.get("RootDeviceName") or "/dev/sda1",
        size_gib=sum(int(disk.get("VolumeSize", 0)) for disk in disks),
        snapshots=tuple(disk["SnapshotId"] for disk in disks if disk.get("SnapshotId")),
    )


def _newest(region: Region) -> str:
    for parameter in PARAMETERS:
        try:
            answer = region.attempt("get_parameter", service="ssm", Name=parameter)
        except ApiError as error:
            if error.code == "ParameterNotFound":
                continue
            from infra.ec2.error_codes import explain

            raise explain(error.code, error.message, "get_parameter") from None
        return str(answer["Parameter"]["Value"])
    raise UsageError(f"AWS publishes no Deep Learning image for {region.name}; name an image with --ami.")
