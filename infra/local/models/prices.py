"""On-demand prices that the simulation goes by: those of the table, and a rough one for all other types.

Spot prices and their history are drawn from these. They are for trying things out; nobody is billed by them.
"""

from __future__ import annotations

from moto.ec2.models.instance_types import INSTANCE_TYPES

from infra import aws

PER_VCPU = 0.05  # of types that are not in the table; about what an m6i costs


def on_demand_price(instance_type: str) -> float:
    """Dollars an hour."""
    return aws.on_demand_price(instance_type) or round(PER_VCPU * vcpus(instance_type), 4)


def vcpus(instance_type: str) -> int:
    """How many virtual processors a type has; 0 of one that EC2 does not know."""
    return int(INSTANCE_TYPES.get(instance_type, {}).get("VCpuInfo", {}).get("DefaultVCpus", 0))
