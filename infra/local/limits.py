"""What is not real in the embedded cloud, said plainly, for ``status`` and the README."""

from __future__ import annotations

from infra.local.scenario import Scenario

ALWAYS = (
    "Prices, quotas, capacity and interruptions are a scenario's; nobody is billed, and nothing leaves "
    "this machine.",
    "Everything an account holds lives in the server's memory: it is gone when the server stops.",
    "Only what a cluster needs of EC2, IAM, STS, SSM, S3 and Service Quotas behaves like AWS; the rest is "
    "moto's.",
)
PROCESSES = (
    "A host is a folder and processes of this machine: there is no SSH, no user of its own, no root, no "
    "systemd, and "
    "no isolation of files, memory or processors from this machine or from other hosts.",
    "sudo, mkfs, mount, systemctl and shutdown are stand-ins that do the equivalent on folders; the size "
    "of a volume "
    "is not enforced.",
    "Security groups are kept and checked, but no packet is ever refused; all hosts share this machine's "
    "network, each "
    "with a loopback address of its own. Public addresses lead nowhere.",
    "User data that is a script (#!) runs at the first boot as this user; cloud-config is only handed to "
    "the host.",
    "There is no GPU unless this machine has one, which all hosts then share.",
)
NONE = ("Instances are states only: nothing can be run on them.",)


def limits(scenario: Scenario) -> list[str]:
    """One sentence each."""
    return [*(NONE if scenario.hosts == "none" else PROCESSES), *ALWAYS]
