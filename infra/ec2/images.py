"""Images: the machine image the nodes start from, by the public parameter AWS keeps for its newest."""

from __future__ import annotations

from dataclasses import dataclass

from infra.ec2.region import ApiError, Region
from infra.errors import UsageError

#: The Deep Learning Base image (NVIDIA driver and CUDA, no framework), under both of its published names.
PARAMETERS = (
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id",
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-ubuntu-22.04/latest/ami-id",
)


@dataclass(frozen=True, kw_only=True)
class Image:
    """A machine image, and the device its root volume goes to."""

    id: str
    name: str
    root_device: str


def find(region: Region, wanted: str) -> Image:
    """The image ``wanted``, or the newest Deep Learning Base image of the region if that is empty.

    Raises UsageError if the image does not exist, is not for x86_64, or has no root volume.
    """
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
    return Image(
        id=image["ImageId"],
        name=image.get("Name", ""),
        root_device=image.get("RootDeviceName") or "/dev/sda1",
    )


def _newest(region: Region) -> str:
    for parameter in PARAMETERS:
        try:
            answer = region.attempt("get_parameter", service="ssm", Name=parameter)
        except ApiError as error:
            if error.code == "ParameterNotFound":
                continue
            from infra.ec2.codes import explain

            raise explain(error.code, error.message, "get_parameter") from None
        return str(answer["Parameter"]["Value"])
    raise UsageError(f"AWS publishes no Deep Learning image for {region.name}; name an image with --ami.")
