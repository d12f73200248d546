"""One embedded cloud with namespace hosts for all tests here, and two hosts in it that tests only look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.infra.local.hosts.namespaces.rig import Rig, rig_in

USER_DATA = """#cloud-config
write_files:
  - path: /etc/greeting
    permissions: "0640"
    owner: ubuntu:ubuntu
    content: hello
runcmd:
  - [sh, -c, "date >>/var/log/first-boot"]
"""


@pytest.fixture(scope="package")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig_in(tmp_path_factory.mktemp("namespaces")) as made:
        yield made


@pytest.fixture(scope="package")
def pair(rig: Rig) -> list[str]:
    """Two instances, with an instance store, an EBS volume of 2 GiB and user data."""
    disk = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 2, "DeleteOnTermination": True}}
    return rig.launch(
        2,
        InstanceType="g6.xlarge",
        BlockDeviceMappings=[disk],
        UserData=USER_DATA,
        MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "role", "Value": "worker"}]}],
    )
