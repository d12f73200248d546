"""On-demand prices the simulation goes by: us-east-1, Linux, dollars an hour, as of November 2026.

Spot prices and their history are drawn from these. They are for trying things out; nobody is billed by them.
"""

from __future__ import annotations

from moto.ec2.models.instance_types import INSTANCE_TYPES

PRICES = {
    "g4dn.xlarge": 0.526, "g4dn.2xlarge": 0.752, "g4dn.4xlarge": 1.204, "g4dn.8xlarge": 2.176,
    "g4dn.16xlarge": 4.352, "g4dn.12xlarge": 3.912, "g4dn.metal": 7.824,
    "g5.xlarge": 1.006, "g5.2xlarge": 1.212, "g5.4xlarge": 1.624, "g5.8xlarge": 2.448, "g5.16xlarge": 4.096,
    "g5.12xlarge": 5.672, "g5.24xlarge": 8.144, "g5.48xlarge": 16.288,
    "g6.xlarge": 0.8048, "g6.2xlarge": 0.9776, "g6.4xlarge": 1.3232, "g6.8xlarge": 2.0144, "g6.16xlarge":
    3.3968, "g6.12xlarge": 4.6016, "g6.24xlarge": 6.6752, "g6.48xlarge": 13.3504, "gr6.4xlarge": 1.539,
    "gr6.8xlarge": 2.446, "g6e.xlarge": 1.861, "g6e.2xlarge": 2.2421, "g6e.4xlarge": 3.0042, "g6e.8xlarge":
    4.5286, "g6e.16xlarge": 7.5772, "g6e.12xlarge": 10.4926, "g6e.24xlarge": 15.0656, "g6e.48xlarge": 30.1312,
    "g7e.2xlarge": 3.3631, "g7e.12xlarge": 8.2861, "g7e.24xlarge": 16.5722, "g7e.48xlarge": 33.1443,
    "m5.large": 0.096, "m5.xlarge": 0.192, "m5.2xlarge": 0.384,
    "m6i.large": 0.096, "m6i.xlarge": 0.192, "m6i.2xlarge": 0.384,
    "m7i.large": 0.1008, "m7i.xlarge": 0.2016, "m7i.2xlarge": 0.4032,
}  # fmt: skip
PER_VCPU = 0.05  # of types that are not in the table; about what an m6i costs


def on_demand_price(instance_type: str) -> float:
    """Dollars an hour."""
    return PRICES.get(instance_type) or round(PER_VCPU * vcpus(instance_type), 4)


def vcpus(instance_type: str) -> int:
    """How many virtual processors a type has; 0 of one that EC2 does not know."""
    return int(INSTANCE_TYPES.get(instance_type, {}).get("VCpuInfo", {}).get("DefaultVCpus", 0))
