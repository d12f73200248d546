"""The policy of a person has every permission that the command's calls need, and no other."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import boto3
import pytest

from infra import policies
from infra.local.models.roles import PREFIXES
from tests.infra.conftest import Run

INFRA = Path(policies.__file__).parent
CALLS = ("read", "change", "attempt", "pages", "_change")
SERVICES = {"ec2", "iam", "pricing", "service-quotas", "ssm", "sts", "s3"}
#: of other services: what they are called in policies
IN_POLICIES = {"service-quotas": "servicequotas", **PREFIXES}
#: what EC2 does on behalf of the caller, or needs beside the call itself
IMPLIED = {"iam:PassRole", "iam:CreateServiceLinkedRole", "iam:TagRole", "iam:TagInstanceProfile"}


def operations() -> Iterator[tuple[str, str]]:
    """Service and operation of every call in the code."""
    for file in INFRA.rglob("*.py"):
        if "local" in file.relative_to(INFRA).parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for service in SERVICES:
                    if node.value in METHODS[service]:
                        yield service, METHODS[service][node.value]


def methods(service: str) -> dict[str, str]:
    """boto3's names of the operations of a service."""
    client = boto3.client(service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    found: dict[str, str] = dict(client.meta.method_to_api_mapping)
    client.close()
    return found


METHODS = {service: methods(service) for service in SERVICES}


@pytest.fixture
def used() -> set[str]:
    return {f"{IN_POLICIES.get(service, service)}:{operation}" for service, operation in operations()}


def test_a_person_may_make_every_call_of_the_code(used: set[str]) -> None:
    [statement] = policies.person()["Statement"]
    allowed = statement["Action"]
    checked = {one for one in used if not one.startswith("s3:")}
    assert [one for one in sorted(checked) if not any(fnmatchcase(one, rule) for rule in allowed)] == []


def test_a_person_may_do_nothing_that_the_code_does_not(used: set[str]) -> None:
    [statement] = policies.person()["Statement"]
    unused = [rule for rule in statement["Action"] if not any(fnmatchcase(one, rule) for one in used)]
    # S3 calls its permissions otherwise than its operations
    assert {one for one in unused if not one.startswith("s3:")} - IMPLIED == set()


def test_the_healers_policy_is_bound_to_its_cluster_where_ec2_can_bind_it() -> None:
    document = policies.healer("eu-west-1", "vision", passes=["arn:aws:iam::123456789012:role/workers"])
    statements = {one["Sid"]: one for one in document["Statement"]}
    assert statements["End"]["Condition"] == {"StringEquals": {"aws:ResourceTag/sparknet:cluster": "vision"}}
    assert statements["Make"]["Condition"] == {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}
    assert statements["PassToWorkers"]["Resource"] == ["arn:aws:iam::123456789012:role/workers"]


@pytest.mark.parametrize("who", ["person", "healer"])
def test_the_command_prints_them(alone: Run, who: str) -> None:
    status, out, _ = alone("iam-policy", who, "--name", "vision", "--region", "eu-west-1")
    assert status == 0
    wanted = policies.person() if who == "person" else policies.healer("eu-west-1", "vision")
    assert json.loads(out) == wanted
