"""What is not real in the embedded cloud, said plainly, for ``status`` and the README."""

from __future__ import annotations

from infra.local.models.scenario import Scenario

ALWAYS = (
    "Prices, quotas, capacity and interruptions are a scenario's; nobody is billed, and nothing leaves "
    "this machine.",
    "Everything an account holds lives in the server's memory: it is gone when the server stops.",
    "Only what a cluster needs of EC2, IAM, STS, SSM, S3 and Service Quotas behaves like AWS; the rest is "
    "moto's.",
)
PROCESSES = (
    "A host is a folder and processes of this machine: there is no SSH, no user of its own, no root, no "
    "systemd, and no isolation of files, memory or processors from this machine or from other hosts.",
    "sudo, mkfs, mount, systemctl and shutdown are stand-ins that do the equivalent on folders; the size "
    "of a volume is not enforced.",
    "Security groups are kept and checked, but no packet is ever refused; all hosts share this machine's "
    "network, each with a loopback address of its own. Public addresses lead nowhere.",
    "User data that is a script (#!) runs at the first boot as this user, and so does the deadline of "
    "--max-hours; cloud-config is only handed to the host.",
    "There is no GPU unless this machine has one, which all hosts then share.",
)
NAMESPACES = (
    "A host is a set of namespaces of this machine with its own network, files, processes, SSH, sudo, "
    "metadata, firewall and block devices; kernel, processors, memory, /usr and /etc are this machine's.",
    "There is no systemd: systemctl and shutdown are stand-ins that run the same ExecStart lines; cloud-init "
    "carries out scripts, write_files, bootcmd and runcmd.",
    "Nothing outside the cloud's own network is reached from a host; hosts can only be in the default VPC.",
    "Disks answer lsblk, blkid and /dev/disk/by-id as on Nitro, but not `nvme id-ctrl`; a volume that is "
    "detached while it is mounted works until it is unmounted, and fails at once if Force is asked for; the "
    "root disk is not shown. They are sparse files: all of them together hold no more than this machine has "
    "room for.",
    "A host's root could reach this machine if it tried: run only programs of your own there.",
    "There is no GPU.",
)
NONE = (
    "Instances are states only: nothing can be run on them, not even the deadline of --max-hours, which a "
    "node carries out by itself. They stay until they are destroyed.",
)


def limits(scenario: Scenario) -> list[str]:
    """One sentence each."""
    of_hosts = {"none": NONE, "processes": PROCESSES, "namespaces": NAMESPACES}
    return [*of_hosts[scenario.hosts], *ALWAYS]
