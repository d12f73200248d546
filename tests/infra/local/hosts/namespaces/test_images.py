"""An image of a namespace host: what was on its root disk, hosts that start from it have, and no more."""

from __future__ import annotations

import pytest

from tests.infra.local.hosts.namespaces.rig import Rig, said, status
from tests.infra.local.requests import describe, wait_for

pytestmark = [pytest.mark.rig, pytest.mark.slow]

IDENTITY = "cat /etc/machine-id; cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub"


def test_a_host_that_starts_from_an_image_has_its_files_and_an_identity_of_its_own(rig: Rig) -> None:
    [source] = rig.launch(UserData="#!/bin/sh\necho source >/var/told\n")
    host = rig.host(source)
    said(
        host,
        "echo installed | sudo tee /opt/thing && sudo chmod 640 /opt/thing && sudo chown ubuntu /opt/thing",
    )
    said(host, "sudo touch /etc/resolv.conf.mine && sudo rm /usr/bin/[")
    before = said(host, IDENTITY).splitlines()
    rig.ec2.stop_instances(InstanceIds=[source])
    wait_for(rig.ec2, source, "stopped")
    image = rig.ec2.create_image(InstanceId=source, Name="with-a-thing")["ImageId"]
    rig.end(source)

    pair = rig.launch(2, ImageId=image, UserData="#!/bin/sh\necho mine >/var/told\n")
    seen = []
    for instance in pair:
        host = rig.host(instance)
        said(host, "cloud-init status --wait")
        assert said(host, "stat -c '%a %U' /opt/thing; cat /opt/thing /var/told").split() == [
            "640", "ubuntu", "installed", "mine",
        ]  # fmt: skip
        assert status(host, "test -e /usr/bin/[") == 1  # what was removed is not there again
        assert status(host, "test -e /etc/resolv.conf.mine") == 0
        assert describe(rig.ec2, instance)["ImageId"] == image
        assert said(host, "hostname") == said(host, "cat /etc/hostname")
        assert said(host, "hostname -I").replace(".", "-") == said(host, "hostname").removeprefix("ip-")
        seen.append(said(host, IDENTITY).splitlines())
    assert all(len({one[place] for one in (before, *seen)}) == 3 for place in range(2))
    rig.end(*pair)
    rig.ec2.deregister_image(ImageId=image)
    assert list((rig.home / "images").iterdir()) == []
