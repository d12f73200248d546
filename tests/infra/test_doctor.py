"""The doctor finds what was broken at the server or here, names the fix, and leaves with its status."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra import access, cluster, doctor
from infra.cloud import Cloud
from infra.doctor import NOTE, WRONG, Finding
from infra.ec2 import credentials, keys, network, nodes
from infra.errors import HostRejectedLogin, HostUnreachable
from infra.events import ignore
from infra.local import LocalCloud
from infra.spec import ClusterSpec
from tests.infra.conftest import Run
from tests.infra.hosts import ScriptedHost
from tests.infra.test_ssh import new_key as make_key

WANTED = doctor.Wanted(workers=5, instance_types=("g6.xlarge", "g5.xlarge"), master_type="m6i.large")
ELSEWHERE = "192.0.2.9/32"


@pytest.fixture
def account(empty: Cloud, simulation: LocalCloud) -> Iterator[Cloud]:
    """An account in which nothing is wrong, whose clock agrees with this machine's."""
    yield empty
    simulation.control("DELETE", "faults")


def findings(cloud: Cloud, **more: Any) -> list[Finding]:
    return list(doctor.examine(lambda: cloud, WANTED, home=cloud.home, **more))


def wrong(cloud: Cloud, *, but: str = "clock", **more: Any) -> list[Finding]:
    """What is wrong, without the clock: tests before this one may have moved that of the cloud."""
    return [one for one in findings(cloud, **more) if one.level == WRONG and one.check != but]


def test_a_sound_machine_and_account_have_nothing_wrong(account: Cloud, spec: ClusterSpec) -> None:
    cluster.launch(account, replace(spec, workers=1), ignore)
    found = findings(account)
    assert [one for one in found if one.level == WRONG and one.check != "clock"] == []
    assert {one.check for one in found} == {
        "versions", "folder", "keys", "credentials", "clock", "region", "permissions", "quota", "network",
        "path", "orphans",
    }  # fmt: skip
    assert all(one.fix for one in found if one.level != "ok")
    cluster.destroy(account, spec.name, ignore)


def test_nothing_is_changed(account: Cloud, simulation: LocalCloud, spec: ClusterSpec) -> None:
    cluster.launch(account, replace(spec, workers=1), ignore)
    simulation.control("DELETE", "calls")
    findings(account)
    calls = simulation.control("GET", "calls")
    assert not [call["action"] for call in calls if call["changes"]]
    assert {"RunInstances", "CreateFleet", "TerminateInstances"} <= {call["action"] for call in calls}
    assert len(nodes.alive(nodes.describe(account.region, spec.name))) == 2
    cluster.destroy(account, spec.name, ignore)


def test_a_clock_that_is_wrong_is_told_by_how_much(account: Cloud, simulation: LocalCloud) -> None:
    account.region.read("describe_regions")
    before = account.region.now()
    simulation.control("POST", "clock", {"advance_seconds": 7200})
    account.region.read("describe_regions")
    assert (account.region.now() - before).total_seconds() == pytest.approx(7200, abs=30)
    (found,) = (one for one in findings(account) if one.check == "clock")
    assert (found.level, found.status) == (WRONG, 3)
    assert " s behind the cloud's" in found.said


def test_a_clock_that_the_cloud_refuses_is_learnt_from_the_refusal(
    account: Cloud, simulation: LocalCloud
) -> None:
    simulation.control("POST", "clock", {"advance_seconds": 3600})
    fault = {"action": "GetCallerIdentity", "code": "RequestExpired", "message": "Request has expired."}
    simulation.control("POST", "faults", [fault])
    asked, clock = (one for one in findings(account) if one.level == WRONG)
    assert [(one.check, one.status) for one in (asked, clock)] == [("credentials", 3), ("clock", 3)]
    assert "compare `date -u` with the real time" in asked.fix


@pytest.mark.parametrize(
    ("code", "sentence", "fix"),
    [
        ("ExpiredToken", "The credentials have expired.", "aws sso login"),
        ("InvalidClientTokenId", "AWS does not know the access key.", "aws configure"),
    ],
)
def test_credentials_that_are_refused_end_the_examination_with_status_3(
    account: Cloud, simulation: LocalCloud, code: str, sentence: str, fix: str
) -> None:
    simulation.control("POST", "faults", [{"action": "GetCallerIdentity", "code": code, "times": 9}])
    found = wrong(account)
    assert [(one.check, one.status) for one in found] == [("credentials", 3)]
    assert found[0].said.startswith(sentence)
    assert found[0].fix == fix


@pytest.mark.parametrize(
    ("action", "verb"),
    [
        ("CreateFleet", "launch"),
        ("CreateTags", "launch"),
        ("DescribeVolumes", "every verb"),
        ("TerminateInstances", "destroy"),
        ("StopInstances", "stop"),
    ],
)
def test_a_permission_that_is_missing_is_named_with_the_verb_that_needs_it(
    account: Cloud, simulation: LocalCloud, action: str, verb: str
) -> None:
    fault = {
        "action": action,
        "code": "UnauthorizedOperation",
        "message": "You are not authorized",
        "times": 1,
    }
    simulation.control("POST", "faults", [fault])
    (found,) = wrong(account)
    assert (found.check, found.status) == ("permissions", 3)
    assert found.said.startswith(f"ec2:{action} is not allowed, which {verb} needs")


def test_a_small_quota_is_named_with_what_is_needed(account: Cloud, simulation: LocalCloud) -> None:
    simulation.control("POST", "quotas", {"L-3819A6DF": 8})
    (found,) = wrong(account)
    assert (found.check, found.status) == ("quota", 4)
    assert "is 8, 20 are needed" in found.said
    assert found.fix.startswith("aws service-quotas request-service-quota-increase")


def test_the_group_is_held_against_this_machine_s_present_address_and_authorize_mends_it(
    account: Cloud, spec: ClusterSpec, run: Run
) -> None:
    cluster.launch(account, replace(spec, workers=1), ignore)
    moved = replace(account, caller_address=lambda: ELSEWHERE)
    (found,) = wrong(moved)
    assert found.check == "network"
    assert f"lets in 198.51.100.7/32, and this machine comes from {ELSEWHERE}" in found.said
    assert found.fix == f"sparknet-ec2 authorize --name {spec.name} --cloud aws --region us-east-1"
    assert access.authorize(moved, spec.name, ELSEWHERE) == ("198.51.100.7/32",)
    group = network.find_group(account.region, spec.name)
    assert group is not None
    assert group.ssh_from == (ELSEWHERE,)
    assert wrong(moved) == []
    status, out, err = run("authorize", spec.name, "--keep")
    assert (status, out) == (0, f"198.51.100.7/32 may use ssh on the nodes of {spec.name}.\n"), err
    assert access.authorize(account, spec.name, "203.0.113.0/24", keep=True) == ()
    assert run("authorize", spec.name, "--authorized-address", "0.0.0.0/0")[0] == 2
    group = network.find_group(account.region, spec.name)
    assert group is not None
    assert set(group.ssh_from) == {ELSEWHERE, "198.51.100.7/32", "203.0.113.0/24"}
    cluster.destroy(account, spec.name, ignore)


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (HostUnreachable("worker-1", "203.0.113.9:22 does not answer"), "sparknet-ec2 authorize --name"),
        (HostRejectedLogin("worker-1", "wrong key or user"), "--identity-file with the key of the cluster"),
    ],
)
def test_a_node_that_cannot_be_reached_is_named(
    account: Cloud, spec: ClusterSpec, error: Exception, fix: str
) -> None:
    cluster.launch(account, replace(spec, workers=2), ignore)

    class Silent(ScriptedHost):
        def run(self, *words: Any, **more: Any) -> Any:
            if self.name == "worker-1":
                raise error
            return super().run(*words, **more)

    (found,) = wrong(replace(account, connect=lambda node: Silent(node.name)))
    assert found.check == "path"
    assert found.said == f"{spec.name}: {error}"
    assert found.fix.startswith(fix)
    cluster.destroy(account, spec.name, ignore)


def test_what_nobody_can_use_is_noted_and_is_no_fault(account: Cloud, spec: ClusterSpec) -> None:
    made = cluster.launch(account, replace(spec, workers=1), ignore)
    past = [{"Key": "sparknet:expires", "Value": "2020-01-01T00:00:00+00:00"}]
    account.region.change("create_tags", Resources=[node.id for node in made.nodes], Tags=past)
    (found,) = (one for one in findings(account) if one.check == "orphans")
    assert (found.level, found.status) == (NOTE, 0)
    assert "its --max-hours are over" in found.said
    assert found.fix == "sparknet-ec2 gc --yes --cloud aws --region us-east-1"
    cluster.destroy(account, spec.name, ignore)


def _open(file: Path) -> None:
    file.chmod(0o644)


def _public(file: Path) -> None:
    file.write_text("ssh-ed25519 AAAAC3Nz me")


def _empty(file: Path) -> None:
    file.write_text("")


def _putty(file: Path) -> None:
    file.write_text("PuTTY-User-Key-File-3: ssh-ed25519")


@pytest.mark.parametrize(
    ("spoil", "fix"),
    [
        (_open, "run chmod 600"),
        (_public, "name the private one"),
        (_empty, "copy c.pem"),
        (_putty, "puttygen"),
    ],
)
def test_a_key_that_ssh_would_refuse_is_named(
    account: Cloud, spoil: Callable[[Path], None], fix: str
) -> None:
    file = keys.key_file(account.home, "us-east-1", "c")
    file.parent.mkdir(parents=True, mode=0o700)
    make_key(file)
    file.chmod(0o600)
    assert wrong(account) == []
    spoil(file)
    (found,) = wrong(account)
    assert (found.check, found.status) == ("keys", 2)
    assert str(file) in found.said
    assert found.fix.startswith(fix)


def test_a_package_that_is_too_old_is_named(account: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.2.3" if name == "boto3" else real(name))
    (found,) = wrong(account)
    assert found.said.startswith("boto3 is 1.2.3, and sparknet-ec2 needs >=")
    assert found.fix.startswith("pip install 'boto3>=")


def test_the_command_prints_each_with_its_fix_and_leaves_with_the_status_of_the_first(
    run: Run, simulation: LocalCloud, account: Cloud
) -> None:
    simulation.control("POST", "quotas", {"L-3819A6DF": 8})
    status, out, _ = run("doctor", "-s", "5")
    lines = out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("WRONG quota"))
    assert lines[place + 1].strip().startswith("fix: aws service-quotas")
    assert lines[-1].endswith(" wrong.")
    told = json.loads(run("doctor", "-s", "5", "--json")[1])
    first = next(one for one in told["findings"] if one["level"] == "wrong")
    assert status == first["status"]
    assert set(first) == {"check", "level", "said", "fix", "status"}


def test_without_credentials_it_says_so_and_what_to_do(alone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(variable, "/nonexistent")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    credentials.session.cache_clear()
    status, out, _ = alone("doctor", "--cloud", "aws")
    credentials.session.cache_clear()
    assert status == 3
    assert "WRONG credentials  No AWS credentials were found." in out
    assert "fix: aws configure" in out
