"""Every option reaches the cluster: from the command line, the environment and the file, in that order."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.cli import options
from infra.cluster import Cloud
from infra.ec2 import images, nodes
from infra.spec import ClusterSpec
from tests.infra.conftest import Asked, Run

#: option -> (what is given, where it goes in the ClusterSpec, what is there then)
GIVEN: dict[str, tuple[Any, str, Any]] = {
    "slaves": (7, "workers", 7),
    "region": ("eu-west-1", "region", "eu-west-1"),
    "name": ("mine", "name", "mine"),
    "user": ("admin", "access.user", "admin"),
    "private-ips": (True, "network.private_ips", True),
    "zone": (["us-east-1b"], "zones", ("us-east-1b",)),
    "instance-type": ("g5.xlarge,g6.xlarge", "instance_types", ("g5.xlarge", "g6.xlarge")),
    "master-instance-type": ("m7i.large", "master_instance_type", "m7i.large"),
    "ami": ("ami-0123456789abcdef0", "image", "ami-0123456789abcdef0"),
    "fresh": (True, "use_own_image", False),
    "spot-price": (0.25, "purchase.spot_price", 0.25),
    "on-demand": (True, "purchase.on_demand", True),
    "fallback": ("on-demand", "purchase.fallback_on_demand", True),
    "spread": (True, "purchase.spread", True),
    "max-hours": (3.5, "max_hours", 3.5),
    "idle-minutes": (45.0, "idle_minutes", 45.0),
    "budget": (20.0, "budget", 20.0),
    "max-price-per-hour": (9.0, "purchase.max_price_per_hour", 9.0),
    "ebs-vol-num": (3, "spill.count", 3),
    "ebs-vol-size": (250, "spill.size_gib", 250),
    "ebs-vol-type": ("gp2", "spill.type", "gp2"),
    "user-data": ("my.txt", "user_data", Path("my.txt")),
    "spark-version": ("4.1.0", "spark_version", "4.1.0"),
    "instance-profile-name": ("reader", "instance_profile", "reader"),
    "heal": (True, "heal", True),
    "bucket": ("my-bucket", "bucket", "my-bucket"),
    "vpc-id": ("vpc-01234567", "network.vpc_id", "vpc-01234567"),
    "subnet-id": ("subnet-01234567", "network.subnet_id", "subnet-01234567"),
    "placement-group": ("near", "network.placement_group", "near"),
    "additional-tags": ("team:vision,cost:42", "tags", {"team": "vision", "cost": "42"}),
    "additional-security-group": (["sg-1", "sg-2"], "network.additional_security_groups", ("sg-1", "sg-2")),
    "authorized-address": ("198.51.100.0/24", "network.authorized_address", "198.51.100.0/24"),
}
#: Options that another test holds, or that only go together with another one.
ELSEWHERE = {
    "cloud",
    "ssh-config",
    "identity-file",
    "key-pair",
    "open-to-the-world",
    "without-gpu",
    "replacements",
}


def as_words(name: str, value: Any) -> list[str]:
    if value is True:
        return [f"--{name}"]
    values = value if isinstance(value, list) else [value]
    return [word for one in values for word in (f"--{name}", str(one))]


def as_variable(name: str, value: Any) -> tuple[str, str]:
    text = " ".join(value) if isinstance(value, list) else str(value)
    return "SPARKNET_" + name.upper().replace("-", "_"), text


def test_every_option_is_looked_at_here_or_elsewhere() -> None:
    known = {next(word for word in one.opts if word.startswith("--"))[2:] for one in options.every()}
    assert known == GIVEN.keys() | ELSEWHERE


def test_an_option_comes_from_a_flag_the_environment_or_the_file(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "home/config.yaml"
    untouched = asked()
    for name, (value, place, there) in GIVEN.items():
        get = attrgetter(place)
        assert get(untouched) != there, name
        assert get(asked(*as_words(name, value))) == there, f"--{name}"
        with monkeypatch.context() as here:
            here.setenv(*as_variable(name, value))
            assert get(asked()) == there, as_variable(name, value)
        file.parent.mkdir(exist_ok=True)  # an empty one goes with the launch
        file.write_text(yaml.safe_dump({name: value}))
        assert get(asked()) == there, f"{name} in the file"
        file.unlink()
    assert asked() == untouched


def test_the_short_flags_of_spark_ec2_are_known(asked: Asked, tmp_path: Path) -> None:
    key = tmp_path / "me.pem"
    words = ["-s", "3", "-k", "me", "-i", str(key), "-r", "eu-west-1", "-z", "eu-west-1a", "-t", "g5.xlarge"]
    spec = asked(*words, "-m", "m7i.large", "-a", "ami-1", "-p", "0.5", "mine")
    assert (spec.name, spec.workers, spec.access.key_pair, spec.access.identity_file) == (
        "mine",
        3,
        "me",
        key,
    )
    assert (spec.region, spec.zones, spec.image) == ("eu-west-1", ("eu-west-1a",), "ami-1")
    assert spec.purchase.spot_price == 0.5


def test_what_is_asked_for_is_what_ec2_is_told(
    run: Run, simulation: Any, simulated: Cloud, spec: ClusterSpec, tmp_path: Path
) -> None:
    region = simulated.region
    subnet = region.read("describe_subnets")["Subnets"][2]
    more = region.change("create_security_group", GroupName=spec.name, Description="x", VpcId=subnet["VpcId"])
    region.change("create_placement_group", GroupName=spec.name, Strategy="cluster")
    region.change("create_instance_profile", service="iam", InstanceProfileName=spec.name)
    public = region.change("create_key_pair", KeyName=spec.name, KeyType="ed25519")
    assert more is not None
    assert public is not None
    key, data = tmp_path / "me.pem", tmp_path / "data.txt"
    key.write_text(public["KeyMaterial"])
    key.chmod(0o600)
    data.write_text("#cloud-config\n")
    image = images.find(region, "").id
    simulation.control("DELETE", "calls")
    status, _, err = run(
        "launch", spec.name, "-s", "2", "-t", "g3.8xlarge", "-k", spec.name, "-i", str(key), "-a", image,
        "--subnet-id", subnet["SubnetId"], "--additional-security-group", more["GroupId"],
        "--placement-group", spec.name, "--instance-profile-name", spec.name, "--user-data", str(data),
        "--additional-tags", "team:vision", "--ebs-vol-num", "2", "--ebs-vol-size", "30", "-p", "4.5",
        "--ebs-vol-type", "gp2", "--authorized-address", "198.51.100.0/28", "--private-ips",
    )  # fmt: skip
    assert status == 0, err
    assert "g3.8xlarge is retired; g5.12xlarge takes its place." in err
    reservations = region.read("describe_instances", Filters=[{"Name": "tag:team", "Values": ["vision"]}])
    machines = [one for part in reservations["Reservations"] for one in part["Instances"]]
    assert len(machines) == 3
    for one in machines:
        assert (one["SubnetId"], one["KeyName"], one["ImageId"]) == (subnet["SubnetId"], spec.name, image)
        assert one["Placement"]["GroupName"] == spec.name
        assert one["IamInstanceProfile"]["Arn"].endswith(spec.name)
        assert more["GroupId"] in {group["GroupId"] for group in one["SecurityGroups"]}
        assert len(one["BlockDeviceMappings"]) == 3
    volumes = region.read("describe_volumes", Filters=[{"Name": "tag:team", "Values": ["vision"]}])["Volumes"]
    assert sorted((one["Size"], one["VolumeType"]) for one in volumes)[-6:] == [(30, "gp2")] * 6
    requests = region.read("describe_spot_instance_requests")["SpotInstanceRequests"]
    assert {one["SpotPrice"] for one in requests if one["State"] == "active"} == {"4.500000"}
    rules = [call for call in simulation.control("GET", "calls") if "Authorize" in call["action"]]
    assert any("198.51.100.0/28" in call["parameters"].values() for call in rules)
    assert run("destroy", spec.name, "-y")[0] == 0
    nodes.wait_gone(region, spec.name, lambda _: True, deadline_seconds=20)
    region.change("delete_security_group", GroupId=more["GroupId"])
    region.change("delete_key_pair", KeyName=spec.name)
