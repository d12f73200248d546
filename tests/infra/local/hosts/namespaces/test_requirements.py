"""What is said of a machine that cannot have namespace hosts, and what hosts are given of one that can."""

from __future__ import annotations

import json
import sys
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from infra.errors import SetupError, UsageError
from infra.local.hosts.namespaces import address_blocks, driver, requirements, rootfs
from infra.local.hosts.namespaces.commands import CommandError
from infra.local.hosts.namespaces.rootfs import Environment, Identity
from infra.local.models import scenario
from infra.local.models.scenario import HOSTS_VARIABLE, Scenario

IDENTITY = Identity(
    hostname="ip-10-20-0-4",
    private_address="10.20.0.4",
    public_key="ssh-ed25519 AAAA",
    user_data=None,
    environment={},
)


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements.sys, "platform", "linux")
    monkeypatch.setattr(requirements.os, "geteuid", lambda: 0)
    monkeypatch.setattr(requirements, "_capabilities", list)
    monkeypatch.setattr(requirements, "_devices", list)
    monkeypatch.setattr(requirements, "find", lambda name: None if name in ("sshd", "sudo") else name)
    assert requirements.missing() == ["there is no sshd, sudo: apt-get install openssh-server sudo"]


def test_another_system_or_another_user_is_said_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(requirements.sys, "platform", "linux")
    assert requirements.missing() == ["this is not root"]
    monkeypatch.setattr(requirements.sys, "platform", "darwin")
    assert requirements.missing() == ["this is not Linux"]


def test_hosts_are_processes_unless_the_environment_or_the_scenario_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(HOSTS_VARIABLE, raising=False)
    assert Scenario().hosts == "processes"
    monkeypatch.setenv(HOSTS_VARIABLE, "namespaces")
    assert Scenario().hosts == "namespaces"
    assert Scenario(hosts="none").hosts == "none"
    monkeypatch.setenv(HOSTS_VARIABLE, "auto")
    for lacking, kind in (([], "namespaces"), (["this is not root"], "processes")):
        monkeypatch.setattr(scenario, "missing", lambda found=lacking: found)
        assert Scenario().hosts == kind
    monkeypatch.setenv(HOSTS_VARIABLE, "containers")
    with pytest.raises(UsageError, match="processes, namespaces, none"):
        Scenario()


def test_asking_for_them_in_vain_ends_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "missing", lambda: ["there is no nft: apt-get install nftables"])
    with pytest.raises(SetupError, match="cannot be made here: there is no nft: apt-get install nftables"):
        driver.Namespaces(cloud=None)  # type: ignore[arg-type]


def test_a_network_that_is_routed_or_taken_meanwhile_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = [{"dst": "default"}, {"dst": "10.16.3.0/24"}, {"dst": "10.18.0.1"}]
    monkeypatch.setattr(address_blocks, "run", lambda *words: json.dumps(routes))

    def add_route(network: IPv4Network) -> None:
        if str(network) == "10.17.0.0/16":
            raise CommandError("RTNETLINK answers: File exists")

    network = address_blocks.claim(address_blocks.vpc_candidates(0), add_route, purpose="a VPC")
    assert str(network) == "10.19.0.0/16"
    everything = [{"dst": "0.0.0.0/1"}, {"dst": "128.0.0.0/1"}]
    monkeypatch.setattr(address_blocks, "run", lambda *words: json.dumps(everything))
    with pytest.raises(SetupError, match="no network for a VPC is free"):
        address_blocks.claim(address_blocks.vpc_candidates(0), add_route, purpose="a VPC")


@pytest.mark.skipif(sys.platform != "linux", reason="a host's accounts are made of Linux's own")
def test_no_password_and_no_account_but_ubuntu_goes_to_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootfs, "_host_keys", list)
    files = {str(file["path"]): str(file["text"]) for file in rootfs.files(IDENTITY)}
    assert {line.split(":")[1] for line in files["etc/shadow"].splitlines()} == {"*"}
    [user] = [line for line in files["etc/passwd"].splitlines() if line.split(":")[2] == "1000"]
    assert user.startswith("ubuntu:x:1000:1000:")
    assert files["etc/hostname"] == "ip-10-20-0-4\n"
    assert "10.20.0.4 ip-10-20-0-4" in files["etc/hosts"]


def test_the_environment_of_this_process_is_given_where_hosts_look_for_it() -> None:
    environment = Environment.of_this_process()
    given = {target for _, target in environment.binds}
    venv = environment.links["opt/sparknet/venv"]
    assert venv in given or Path(venv).parts[1] in rootfs.SHARED_FOLDERS
    python = Path(environment.python)
    assert python.exists()
    assert any(python.is_relative_to(target) for target in given) or python.parts[1] in rootfs.SHARED_FOLDERS
