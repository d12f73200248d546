"""Images and the parameters that lead to them, as the lookups of any tool ask for them."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.local import LocalCloud
from infra.local.models.published_images import IMAGES, PARAMETERS
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
    from tests.infra.local.requests import machine, wait_for

    source = machine(ec2)
    wait_for(ec2, source["InstanceId"], "running")
    image = ec2.create_image(InstanceId=source["InstanceId"], Name="mine")["ImageId"]
    assert machine(ec2, ImageId=image)["ImageId"] == image


def test_the_caller_can_be_asked_for(cloud: LocalCloud) -> None:
    sts = client(cloud, "sts")
    assert sts.get_caller_identity()["Account"] == "123456789012"
    sts.close()


def test_a_host_that_starts_from_an_image_has_the_files_of_its_root_disk(
    hosts_cloud: LocalCloud, hosts_ec2: Any
) -> None:
    from tests.infra.local.requests import machine, wait_for

    source = machine(hosts_ec2)["InstanceId"]
    wait_for(hosts_ec2, source, "running")
    host = hosts_cloud.connect(source)
    host.run(
        "echo installed >$SPARKNET_ROOT/opt/sparknet/thing && touch $SPARKNET_ROOT/mnt/elsewhere && "
        "ln -s $SPARKNET_ROOT/opt/sparknet/thing $SPARKNET_ROOT/opt/link",
        timeout_seconds=30,
    )
    image = hosts_ec2.create_image(InstanceId=source, Name="with-a-thing")["ImageId"]
    hosts_ec2.terminate_instances(InstanceIds=[source])
    wait_for(hosts_ec2, source, "terminated")
    copied = hosts_ec2.copy_image(SourceImageId=image, SourceRegion="us-east-1", Name="again")["ImageId"]
    for number, wanted in enumerate((image, copied)):
        instance = machine(hosts_ec2, ImageId=wanted)["InstanceId"]
        wait_for(hosts_ec2, instance, "running")
        command = "cd $SPARKNET_ROOT && cat opt/link && ls mnt && cat etc/hostname"
        told = hosts_cloud.connect(instance).run(command, timeout_seconds=30).stdout.split()
        assert told[0] == "installed", number
        assert told[1].startswith("ip-127-")
    for one in (image, copied):
        hosts_ec2.deregister_image(ImageId=one)
    assert list((hosts_cloud.folder / "images").iterdir()) == []


def test_a_name_is_given_to_one_image_only_and_tags_reach_its_snapshot(ec2: Any) -> None:
    from tests.infra.local.requests import machine

    source = machine(ec2)["InstanceId"]
    specification = [
        {"ResourceType": kind, "Tags": [{"Key": "kind", "Value": kind}]} for kind in ("image", "snapshot")
    ]
    image = ec2.create_image(InstanceId=source, Name="only", TagSpecifications=specification)["ImageId"]
    with pytest.raises(ClientError, match=r"InvalidAMIName\.Duplicate"):
        ec2.create_image(InstanceId=source, Name="only")
    (described,) = ec2.describe_images(ImageIds=[image])["Images"]
    assert described["Tags"] == [{"Key": "kind", "Value": "image"}]
    assert described["RootDeviceType"] == "ebs"
    snapshot = described["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    (found,) = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    assert found["Tags"] == [{"Key": "kind", "Value": "snapshot"}]
    with pytest.raises(ClientError, match=r"InvalidSnapshot\.InUse"):
        ec2.delete_snapshot(SnapshotId=snapshot)
    ec2.deregister_image(ImageId=image)
    ec2.delete_snapshot(SnapshotId=snapshot)


def test_a_copy_asked_for_twice_with_one_token_is_one_copy(ec2: Any) -> None:
    from tests.infra.local.requests import machine

    image = ec2.create_image(InstanceId=machine(ec2)["InstanceId"], Name="source")["ImageId"]
    asked = {"SourceImageId": image, "SourceRegion": "us-east-1", "Name": "copy", "ClientToken": "token"}
    first, second = (ec2.copy_image(**asked)["ImageId"] for _ in range(2))
    assert first == second
    for one in (image, first):
        ec2.deregister_image(ImageId=one)
