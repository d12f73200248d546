"""Rig: an embedded cloud with namespace hosts, and what tests ask of it in one line each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from infra.local import LocalCloud, clean, open_cloud
from infra.local.hosts.namespaces import missing
from infra.node.ssh import SSHHost
from tests.infra.local.conftest import client
from tests.infra.local.requests import ZONE, describe, machines, name, until, wait_for

ANYONE = "0.0.0.0/0"
BOOT_SECONDS = 60.0


@dataclass
class Rig:
    """A cloud, its EC2, a key pair, and a group that lets in ssh from this machine and nothing else."""

    cloud: LocalCloud
    ec2: Any
    folder: Path
    key: Path
    key_name: str
    group: str
    hosts: list[SSHHost] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.cloud.folder

    def launch(self, count: int = 1, **parameters: Any) -> list[str]:
        """Ids of new instances that run."""
        defaults = {
            "KeyName": self.key_name,
            "SecurityGroupIds": [self.group],
            "Placement": {"AvailabilityZone": ZONE},
        }
        made = [one["InstanceId"] for one in machines(self.ec2, count, **{**defaults, **parameters})]
        for instance_id in made:
            until(lambda i=instance_id: self.state(i) != "pending", f"{instance_id} to boot", BOOT_SECONDS)
            assert self.state(instance_id) == "running", describe(self.ec2, instance_id)["StateReason"]
        return made

    def state(self, instance_id: str) -> str:
        return str(describe(self.ec2, instance_id)["State"]["Name"])

    def host(self, instance_id: str, *, key: Path | None = None, user: str = "ubuntu") -> SSHHost:
        """Its host at the public address; ``known_hosts`` is new for each, since addresses are used again."""
        address = describe(self.ec2, instance_id)["PublicIpAddress"]
        known = self.folder / "known_hosts" / name()
        found = SSHHost(instance_id, address, user=user, key=key or self.key, known_hosts=known)
        self.hosts.append(found)
        return found

    def end(self, *instance_ids: str) -> None:
        self.ec2.terminate_instances(InstanceIds=list(instance_ids))
        for instance_id in instance_ids:
            wait_for(self.ec2, instance_id, "terminated")

    def volume(self, size_gib: int = 1) -> str:
        return str(self.ec2.create_volume(AvailabilityZone=ZONE, Size=size_gib)["VolumeId"])


@contextmanager
def rig_in(folder: Path) -> Iterator[Rig]:
    """A new embedded cloud with its home in ``folder``, gone afterwards. Skips where there can be none."""
    if lacking := missing():
        pytest.skip(f"no namespace hosts here: {'; '.join(lacking)}")
    scenario = folder / "scenario.json"
    scenario.write_text(json.dumps({"hosts": "namespaces", "notice_seconds": 0.5}))
    cloud = open_cloud(folder, scenario=scenario)
    assert cloud is not None
    with closing(client(cloud)) as ec2:
        rig = Rig(cloud, ec2, folder, folder / "key.pem", "key", "")
        try:
            rig.key.write_text(ec2.create_key_pair(KeyName=rig.key_name, KeyType="ed25519")["KeyMaterial"])
            rig.key.chmod(0o600)
            rig.group = group_of(rig)
            yield rig
        finally:
            for host in rig.hosts:
                host.close()
            clean(folder)


def group_of(rig: Rig) -> str:
    """A new group with the one rule that every host here needs."""
    vpc = rig.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = str(rig.ec2.create_security_group(GroupName=name(), Description="rig", VpcId=vpc)["GroupId"])
    allow(rig, group, 22, cidr=rig.cloud.caller_address)
    return group


def allow(rig: Rig, group: str, port: int, *, cidr: str | None = None, other: str | None = None) -> None:
    rig.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission(port, cidr, other)])


def refuse(rig: Rig, group: str, port: int, *, cidr: str | None = None, other: str | None = None) -> None:
    rig.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[permission(port, cidr, other)])


def permission(port: int, cidr: str | None, other: str | None) -> dict[str, Any]:
    peers = {"IpRanges": [{"CidrIp": cidr}]} if cidr else {"UserIdGroupPairs": [{"GroupId": other}]}
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **peers}


def said(host: SSHHost, command: str, timeout_seconds: float = 30.0) -> str:
    """What a command that must succeed writes to standard output."""
    return host.run(command, timeout_seconds=timeout_seconds).stdout.strip()


def status(host: SSHHost, command: str, timeout_seconds: float = 30.0) -> int:
    return host.run(command, timeout_seconds=timeout_seconds, check=False).exit_status
