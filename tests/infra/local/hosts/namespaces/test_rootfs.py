"""Images made of namespace hosts: their files are there, and the new host is nevertheless another one."""

from __future__ import annotations

import pytest

from tests.infra.local.hosts.namespaces.rig import Rig, said
from tests.infra.local.requests import name, until

pytestmark = [pytest.mark.rig, pytest.mark.slow]

IDENTITY = "cat /etc/hostname /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub"
SCRIPT = "#!/bin/sh\necho mine >>/var/log/mine\n"


def test_a_host_from_an_image_has_its_files_and_an_identity_of_its_own(rig: Rig) -> None:
    [source] = rig.launch(UserData=SCRIPT)
    host = rig.host(source)
    said(host, "cloud-init status --wait; echo baked | sudo tee /opt/baked /usr/local/bin/baked")
    image = rig.ec2.create_image(InstanceId=source, Name=name())["ImageId"]
    rig.ec2.get_waiter("image_available").wait(ImageIds=[image])
    [made] = rig.launch(ImageId=image, UserData=SCRIPT.replace("mine", "again"))
    copy = rig.host(made)
    until(lambda: "done" in said(copy, "cloud-init status"), "the boot to be over")
    assert said(copy, "cat /opt/baked /usr/local/bin/baked /var/log/mine /var/log/again").split() == [
        "baked", "baked", "mine", "again",
    ]  # fmt: skip
    assert not set(said(host, IDENTITY).splitlines()) & set(said(copy, IDENTITY).splitlines())
    assert said(copy, "/opt/sparknet/venv/bin/python -c 'print(1)'") == "1"
    rig.end(source, made)
    rig.ec2.deregister_image(ImageId=image)
