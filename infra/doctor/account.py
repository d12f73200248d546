"""The account: who asks, in which region, at what time, what is allowed, and how much of it may run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.cloud import Cloud
from infra.doctor.findings import Finding, note, ok, wrong
from infra.ec2 import catalog, quotas
from infra.ec2.error_codes import explain
from infra.ec2.quotas import Need
from infra.ec2.region import ApiError, Region
from infra.errors import CredentialsError, InfraError, QuotaError
from infra.spec import ON_DEMAND, SPOT

SOON = timedelta(hours=1)  # credentials that end before a launch does
SKEW = timedelta(minutes=5)  # AWS refuses calls that are dated so far from its own time
UNEVEN = timedelta(seconds=30)
REFUSED = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")
GROUP, NODE, TEMPLATE = "sg-01234567890abcdef", "i-01234567890abcdef", "lt-01234567890abcdef"
REQUEST, VOLUME = "sir-01234567", "vol-01234567890abcdef"

#: The calls that change something, and the least they need; with DryRun nothing is done.
#: What verbs need them for, by the first that does.
CALLS: Mapping[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "launch": (
        ("create_security_group", {"GroupName": "sparknet-doctor", "Description": "never made"}),
        (
            "authorize_security_group_ingress",
            {"GroupId": GROUP, "IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "192.0.2.1/32"},
        ),
        (
            "create_launch_template",
            {"LaunchTemplateName": "sparknet-doctor", "LaunchTemplateData": {"InstanceType": "m6i.large"}},
        ),
        ("import_key_pair", {"KeyName": "sparknet-doctor", "PublicKeyMaterial": b"ssh-ed25519 AAAA"}),
        ("run_instances", {"ImageId": "ami-01234567890abcdef", "MinCount": 1, "MaxCount": 1}),
        (
            "create_fleet",
            {
                "Type": "instant",
                "LaunchTemplateConfigs": [
                    {"LaunchTemplateSpecification": {"LaunchTemplateId": TEMPLATE, "Version": "$Latest"}}
                ],
                "TargetCapacitySpecification": {
                    "TotalTargetCapacity": 1,
                    "DefaultTargetCapacityType": "spot",
                },
            },
        ),
        ("create_tags", {"Resources": [NODE], "Tags": [{"Key": "sparknet:doctor", "Value": ""}]}),
    ),
    "destroy": (
        ("terminate_instances", {"InstanceIds": [NODE]}),
        ("cancel_spot_instance_requests", {"SpotInstanceRequestIds": [REQUEST]}),
        ("delete_volume", {"VolumeId": VOLUME}),
        ("delete_launch_template", {"LaunchTemplateId": TEMPLATE}),
        ("delete_security_group", {"GroupId": GROUP}),
        ("delete_key_pair", {"KeyName": "sparknet-doctor"}),
    ),
    "stop": (("stop_instances", {"InstanceIds": [NODE]}), ("start_instances", {"InstanceIds": [NODE]})),
}
_ONE_TYPE = {"InstanceTypes": ["m6i.large"]}
#: The calls that only read, narrowed to little.
READS: tuple[tuple[str, dict[str, Any]], ...] = (
    *(
        (f"describe_{kind}", {})
        for kind in (
            "instances",
            "volumes",
            "security_groups",
            "launch_templates",
            "key_pairs",
            "network_interfaces",
            "addresses",
            "placement_groups",
            "spot_instance_requests",
            "subnets",
            "vpcs",
            "route_tables",
        )
    ),
    ("describe_images", {"Owners": ["self"]}),
    ("describe_snapshots", {"OwnerIds": ["self"]}),
    ("describe_instance_types", _ONE_TYPE),
    ("describe_spot_price_history", {**_ONE_TYPE, "MaxResults": 5}),
    ("describe_instance_type_offerings", {"Filters": [{"Name": "instance-type", "Values": ["m6i.large"]}]}),
)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The cluster for which the quotas are to have room."""

    workers: int
    instance_types: tuple[str, ...]
    master_type: str
    on_demand: bool = False


def identity(cloud: Cloud) -> Iterator[Finding]:
    """Who the credentials are, where they come from, and until when they hold."""
    who = cloud.region.read("get_caller_identity", service="sts")
    origin = cloud.region.credentials_origin()
    yield ok("credentials", f"{who['Arn']}, from {origin.method}")
    if origin.until and origin.until - datetime.now(UTC) < SOON:
        yield note(
            "credentials",
            f"they end at {origin.until:%H:%M} UTC, and a launch or a long wait may outlast them.",
            "aws sso login, or assume the role again",
        )


def region(cloud: Cloud) -> Iterator[Finding]:
    """Whether the account may use the region."""
    name = cloud.region.name
    found = cloud.region.read("describe_regions", AllRegions=True)["Regions"]
    status = next((one.get("OptInStatus", "") for one in found if one["RegionName"] == name), "")
    if status == "not-opted-in":
        yield wrong(
            "region",
            f"The account has not opted in to {name}.",
            f"aws account enable-region --region-name {name}, or another --region",
            status=CredentialsError.exit_status,
        )
    else:
        yield ok("region", name)


def clock(cloud: Cloud) -> Iterator[Finding]:
    """How far this machine's clock is from the cloud's, which dates deadlines and costs."""
    ahead = cloud.region.now() - datetime.now(UTC)
    seconds = abs(ahead.total_seconds())
    way = "behind" if ahead > timedelta() else "ahead of"
    if abs(ahead) < UNEVEN:
        yield ok("clock", "agrees with the cloud's")
        return
    cure = "sudo timedatectl set-ntp true" if cloud.kind == "aws" else "the simulated clock has been moved"
    if abs(ahead) < SKEW:
        yield note("clock", f"This machine's clock is {seconds:.0f} s {way} the cloud's.", cure)
    else:
        yield wrong(
            "clock",
            f"This machine's clock is {seconds:.0f} s {way} the cloud's; AWS refuses calls dated so wrong.",
            cure,
            status=CredentialsError.exit_status,
        )


def permissions(cloud: Cloud) -> Iterator[Finding]:
    """Each call that verbs make, asked for by DryRun: nothing is done."""
    refused = []
    for verb, calls in {"every verb": READS, **CALLS}.items():
        for operation, least in calls:
            message = _refusal(cloud.region, operation, least)
            if message:
                refused.append(operation)
                yield wrong(
                    "permissions",
                    f"ec2:{_action(operation)} is not allowed, which {verb} needs ({message}).",
                    "ask the account's administrator for it",
                    status=CredentialsError.exit_status,
                )
    if not refused:
        count = len(READS) + sum(map(len, CALLS.values()))
        yield ok("permissions", f"all {count} calls of EC2 that verbs make are allowed")
    yield from _beside(cloud.region)


def room(cloud: Cloud, wanted: Wanted) -> Iterator[Finding]:
    """Whether the quotas have room for one more cluster."""
    vcpus = catalog.vcpus(cloud.region, {*wanted.instance_types, wanted.master_type})
    families: dict[str, int] = {}
    for name in wanted.instance_types:
        if name in vcpus:
            need = vcpus[name] * wanted.workers
            families[quotas.family(name)] = min(need, families.get(quotas.family(name), need))
    bought = ON_DEMAND if wanted.on_demand else SPOT
    needs = [Need(family=family, purchase=bought, vcpus=need) for family, need in sorted(families.items())]
    if wanted.master_type in vcpus:
        master = quotas.family(wanted.master_type)
        needs.append(Need(family=master, purchase=ON_DEMAND, vcpus=vcpus[wanted.master_type]))
    for line in quotas.lines(cloud.region, needs, quotas.in_use(cloud.region)):
        try:
            quotas.require(cloud.region, [line])
        except QuotaError as error:
            said, _, rest = str(error).partition("\n")
            yield wrong("quota", said, rest.rpartition("try: ")[2], status=error.exit_status)
        else:
            limit = "limit unknown" if line.limit is None else f"limit {line.limit:g}"
            yield ok(
                "quota",
                f"{line.need.code} {line.need.family} {line.need.purchase}: {line.need.vcpus} vCPUs for "
                f"{wanted.workers} workers and a master, {line.used} in use, {limit}",
            )


def _refusal(region: Region, operation: str, least: Mapping[str, Any]) -> str:
    """AWS's words if the call is not allowed; empty if it is, or cannot be told from other reasons."""
    try:
        region.attempt(operation, DryRun=True, **least)
    except ApiError as error:
        if error.code in REFUSED:
            return error.message
        if error.code not in ("DryRunOperation", "InvalidAction") and not error.code.startswith("Invalid"):
            raise explain(error.code, error.message, operation) from None
    return ""


def _beside(region: Region) -> Iterator[Finding]:
    """What launches do without, but better with."""
    try:
        region.read("list_service_quotas", service="service-quotas", ServiceCode="ec2", MaxResults=1)
    except InfraError:
        yield note(
            "permissions",
            "Quotas cannot be read, so that plan and launch cannot say beforehand that one is too small.",
            "ask for servicequotas:GetServiceQuota and ListServiceQuotas",
        )


def _action(operation: str) -> str:
    return "".join(word.capitalize() for word in operation.split("_"))
