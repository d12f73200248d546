"""Images and the parameters that lead to them, as the lookups of any tool ask for them."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.local import LocalCloud
from infra.local.images import IMAGES, PARAMETERS
from tests.infra.local.conftest import client


def test_parameters_lead_to_images_that_can_be_described(cloud: LocalCloud, ec2: Any) -> None:
    ssm = client(cloud, "ssm")
    for name, image in PARAMETERS.items():
        parameter = ssm.get_parameter(Name=name)["Parameter"]
        assert (parameter["Value"], parameter["DataType"]) == (image, "aws:ec2:image")
    with pytest.raises(ClientError, match="ParameterNotFound"):
        ssm.get_parameter(Name="/aws/service/deeplearning/ami/x86_64/none/latest/ami-id")
    ssm.close()
    found = ec2.describe_images(ImageIds=[image.id for image in IMAGES])["Images"]
    assert {image["Name"] for image in found} == {image.name for image in IMAGES}
    assert {(image["Architecture"], image["RootDeviceName"]) for image in found} == {("x86_64", "/dev/sda1")}


def test_images_can_be_found_by_owner_and_name(ec2: Any) -> None:
    filters = [{"Name": "name", "Values": ["Deep Learning Base OSS*22.04*"]}]
    found = ec2.describe_images(Owners=["amazon"], Filters=filters)["Images"]
    assert [image["ImageId"] for image in found] == ["ami-0d1a51a51a51a2204"]


def test_an_image_of_an_instance_can_be_made_and_launched(ec2: Any) -> None:
    from tests.infra.local.orders import machine, wait_for

    source = machine(ec2)
    wait_for(ec2, source["InstanceId"], "running")
    image = ec2.create_image(InstanceId=source["InstanceId"], Name="mine")["ImageId"]
    assert machine(ec2, ImageId=image)["ImageId"] == image


def test_the_caller_can_be_asked_for(cloud: LocalCloud) -> None:
    sts = client(cloud, "sts")
    assert sts.get_caller_identity()["Account"] == "123456789012"
    sts.close()
