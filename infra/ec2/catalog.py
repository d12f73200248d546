"""Catalog: what instance types there are, where they are offered, and what replaces the retired ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from infra.ec2.region import Region
from infra.errors import UsageError

#: Types that EC2 no longer offers, and a current type with at least as many GPUs.
RETIRED = {
    "g2.2xlarge": "g4dn.xlarge",
    "g2.8xlarge": "g4dn.12xlarge",
    "g3s.xlarge": "g4dn.xlarge",
    "g3.4xlarge": "g4dn.4xlarge",
    "g3.8xlarge": "g5.12xlarge",
    "g3.16xlarge": "g5.12xlarge",
    "p2.xlarge": "g4dn.xlarge",
    "p2.8xlarge": "g5.48xlarge",
    "p3.2xlarge": "g5.2xlarge",
    "p3.8xlarge": "g5.12xlarge",
    "p3.16xlarge": "g5.48xlarge",
}


@dataclass(frozen=True, kw_only=True)
class InstanceType:
    """The facts of one type."""

    name: str
    vcpus: int
    memory_mib: int
    gpus: int
    gpu_name: str
    gpu_memory_mib: int
    store_gb: int  # instance store, all disks together


def without_retired(names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """``names`` with each retired type replaced by its successor, and a note for each replacement."""
    translated, notes = [], []
    for name in names:
        successor = RETIRED.get(name)
        if successor:
            notes.append(f"{name} is retired; {successor} takes its place.")
        translated.append(successor or name)
    return tuple(dict.fromkeys(translated)), tuple(notes)


def types(region: Region, names: Iterable[str]) -> dict[str, InstanceType]:
    """The facts of those of ``names`` that the region knows.

    A type with a fraction of a GPU is left out: it has GPU memory, and a GPU count of 0.
    """
    filters = [{"Name": "instance-type", "Values": sorted(set(names))}]
    found = {}
    for one in region.pages("describe_instance_types", "InstanceTypes", Filters=filters):
        gpus = one.get("GpuInfo", {}).get("Gpus", [])  # one entry a kind of GPU, with its count
        if gpus and not sum(gpu["Count"] for gpu in gpus):
            continue
        found[one["InstanceType"]] = InstanceType(
            name=one["InstanceType"],
            vcpus=one["VCpuInfo"]["DefaultVCpus"],
            memory_mib=one["MemoryInfo"]["SizeInMiB"],
            gpus=sum(gpu["Count"] for gpu in gpus),
            gpu_name=gpus[0]["Name"] if gpus else "",
            gpu_memory_mib=gpus[0]["MemoryInfo"]["SizeInMiB"] if gpus else 0,
            store_gb=one.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0),
        )
    return found


def vcpus(region: Region, names: Iterable[str]) -> dict[str, int]:
    """The virtual processors of each of ``names``."""
    filters = [{"Name": "instance-type", "Values": sorted(set(names))}]
    found = region.pages("describe_instance_types", "InstanceTypes", Filters=filters)
    return {one["InstanceType"]: one["VCpuInfo"]["DefaultVCpus"] for one in found}


def offerings(region: Region, names: Iterable[str]) -> dict[str, frozenset[str]]:
    """The zones that offer each of ``names``; a type no zone offers is missing."""
    zones: dict[str, set[str]] = {}
    for one in region.pages(
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": sorted(set(names))}],
    ):
        zones.setdefault(one["InstanceType"], set()).add(one["Location"])
    return {name: frozenset(found) for name, found in zones.items()}


def require_offered(region: Region, names: Iterable[str], offered: dict[str, frozenset[str]]) -> None:
    """Raises UsageError if the region offers none of ``names`` in any zone."""
    wanted = list(names)
    if not any(offered.get(name) for name in wanted):
        raise UsageError(
            f"{region.name} offers none of {', '.join(wanted)}; sparknet-ec2 plan --region REGION shows what "
            "another region offers."
        )
