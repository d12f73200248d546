"""ClusterSpec: everything the user can say about a cluster, checked once, frozen.

The command line builds one from flags, then the environment, then the YAML file, then the defaults below;
nothing else travels. An impossible value raises UsageError with one sentence.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra import aws
from infra.errors import UsageError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
SPARK_VERSION = re.compile(r"\d+\.\d+\.\d+")
INSTANCE_TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")
VOLUME_TYPES = ("gp3", "gp2", "io1", "io2", "st1", "sc1")
LOWEST_SPOT_PRICE = 0.001  # EC2 refuses a maximum price at or below this
MOST_WORKERS = 1000  # an instant fleet launches at most this many
MOST_HOURS = 24 * 28
LEAST_IDLE_MINUTES = 5  # a person between two jobs
BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")  # a dot would not fit the name of its certificate
NODES_A_REPLACEMENT = 5
MOST_TAGS, OWN_TAGS = 50, 24  # of one resource, as EC2; of them for what sparknet-ec2 notes itself
MOST_KEY_CHARACTERS, MOST_VALUE_CHARACTERS = 128, 256  # of a tag

#: The ways to buy a node, as EC2 and the options call them.
SPOT, ON_DEMAND = "spot", "on-demand"

#: Cheapest dollars a GPU that knows bfloat16 first; several, because spot capacity comes and goes.
GPU_TYPES = ("g6.xlarge", "g5.xlarge", "g4dn.xlarge", "g6.2xlarge", "g5.2xlarge", "g6e.xlarge")
MASTER_TYPE = "m6i.large"


def require(claim: object, message: str) -> None:
    """Raise UsageError with ``message`` unless ``claim`` is true."""
    if not claim:
        raise UsageError(message)


def require_limits(idle_minutes: float | None, budget: float | None) -> None:
    """Raise UsageError if a cluster cannot end after so long without a job, or at such a cost."""
    idle = idle_minutes or 0.0
    require(
        not idle or LEAST_IDLE_MINUTES <= idle <= MOST_HOURS * 60,
        f"--idle-minutes {idle:g} is neither 0 (never) nor between {LEAST_IDLE_MINUTES} and "
        f"{MOST_HOURS * 60}.",
    )
    require(budget is None or budget > 0, f"--budget {budget} must be more than 0 dollars.")


@dataclass(frozen=True, kw_only=True)
class Purchase:
    """How workers are bought."""

    # dollars an hour for one worker; None: at most the on-demand price, which is EC2's own default
    spot_price: float | None = None
    on_demand: bool = False  # workers too, which can be stopped and started then
    fallback_on_demand: bool = False  # when no spot pool has the machines
    spread: bool = False  # workers may differ in type and zone
    # dollars an hour for the whole cluster; checked before anything is made
    max_price_per_hour: float | None = None

    def __post_init__(self) -> None:
        require(
            not self.on_demand or self.spot_price is None,
            "--spot-price is for spot machines, of which --on-demand buys none; leave out one of them.",
        )
        if self.spot_price is not None:
            require(
                self.spot_price > LOWEST_SPOT_PRICE,
                f"--spot-price {self.spot_price:g} is too low: EC2 takes prices above "
                f"${LOWEST_SPOT_PRICE} an hour.",
            )
        if self.max_price_per_hour is not None:
            require(self.max_price_per_hour > 0, "--max-price-per-hour must be more than 0 dollars.")

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways in which workers may be bought, the first one first."""
        if self.on_demand:
            return (ON_DEMAND,)
        return (SPOT, ON_DEMAND) if self.fallback_on_demand else (SPOT,)


@dataclass(frozen=True, kw_only=True)
class Spill:
    """The volumes each node gets for what Spark spills to disk."""

    count: int = 1
    size_gib: int = 100
    type: str = "gp3"

    def __post_init__(self) -> None:
        require(0 <= self.count <= 11, f"--ebs-vol-num {self.count} is not between 0 and 11.")
        require(
            self.type in VOLUME_TYPES,
            f"--ebs-vol-type {self.type} is not a volume type; choose one of {', '.join(VOLUME_TYPES)}.",
        )
        least, most = aws.volume_sizes()[self.type]
        require(
            least <= self.size_gib <= most,
            f"--ebs-vol-size {self.size_gib} is not between {least} and {most} GiB, as volumes of type "
            f"{self.type} are.",
        )


@dataclass(frozen=True, kw_only=True)
class Network:
    """Where in a VPC the nodes are, and who may reach them."""

    vpc_id: str = ""  # empty: the region's default VPC
    subnet_id: str = ""  # empty: every subnet of the VPC whose zone offers the type
    private_ips: bool = False  # reach the nodes at their private addresses
    authorized_address: str = ""  # CIDR that may use ssh; empty: the caller's own /32
    open_to_the_world: bool = False
    additional_security_groups: tuple[str, ...] = ()
    placement_group: str = ""

    def __post_init__(self) -> None:
        if not self.authorized_address:
            return
        try:
            network = ipaddress.ip_network(self.authorized_address, strict=False)
        except ValueError:
            raise UsageError(
                f"--authorized-address {self.authorized_address} is not an address or a range "
                "like 198.51.100.7/32."
            ) from None
        require(
            network.prefixlen > 0 or self.open_to_the_world,
            f"--authorized-address {self.authorized_address} lets the whole internet try the ssh port; "
            "add --open-to-the-world if that is meant.",
        )


@dataclass(frozen=True, kw_only=True)
class Access:
    """The key pair that opens the nodes."""

    key_pair: str = ""  # empty: one is made for the cluster
    identity_file: Path | None = None
    user: str = "ubuntu"

    def __post_init__(self) -> None:
        require(
            not self.key_pair or self.identity_file,
            f"--key-pair {self.key_pair} needs --identity-file, the private half of it.",
        )
        require(
            not self.identity_file or self.key_pair,
            "--identity-file needs --key-pair, the name of its public half in EC2.",
        )


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """A cluster as the user wants it."""

    name: str = "sparknet"
    region: str = "us-east-1"
    zones: tuple[str, ...] = ()  # empty: all of the region
    workers: int = 2
    instance_types: tuple[str, ...] = GPU_TYPES  # in order of preference
    master_instance_type: str = MASTER_TYPE
    image: str = ""  # empty: the newest fitting one
    use_own_image: bool = True  # an image of `image build`, if there is one of the same scripts and versions
    user_data: Path | None = None  # None: the cloud-config.txt of the package
    spark_version: str = ""  # empty: the pin of ami/versions.toml
    instance_profile: str = ""
    bucket: str = ""  # where jobs save that name no place, and their records outlive the master
    require_gpus: bool = True  # a worker whose type has GPUs must show them
    max_hours: float = 12.0  # the nodes end themselves after this; 0: never
    idle_minutes: float = 0.0  # and after so long without a job; 0: never
    budget: float | None = None  # and once they have cost so many dollars
    replacements: int | None = None  # so many nodes that fail are replaced; None: one in five, at least one
    repair: bool = False  # those of a cluster that was ready before as well, and any number of them
    heal: bool = False  # a healer on the master replaces workers that are lost
    tags: Mapping[str, str] = field(default_factory=dict)
    purchase: Purchase = Purchase()
    spill: Spill = Spill()
    network: Network = Network()
    access: Access = Access()

    def __post_init__(self) -> None:
        require(
            NAME.fullmatch(self.name),
            f"--name {self.name!r} cannot be a cluster's name: a letter, then letters, digits, "
            "- and _, 63 at most.",
        )
        require(REGION.fullmatch(self.region), f"--region {self.region} is not a region like us-east-1.")
        require(
            not self.spark_version or SPARK_VERSION.fullmatch(self.spark_version),
            f"--spark-version {self.spark_version} is not a version like 4.1.0.",
        )
        self._check_size()
        self._check_tags()
        self._check_places()
        self._check_types()

    def _check_size(self) -> None:
        require(self.workers >= 1, f"-s {self.workers}: a cluster needs at least one worker.")
        require(
            self.workers <= MOST_WORKERS,
            f"-s {self.workers}: EC2 launches at most {MOST_WORKERS} workers in one fleet.",
        )
        require(
            self.replacements is None or self.replacements >= 0,
            f"--replacements {self.replacements}: that many nodes cannot be replaced; 0 is none.",
        )
        require(
            0 <= self.max_hours <= MOST_HOURS,
            f"--max-hours {self.max_hours:g} is not between 0 (no limit) and {MOST_HOURS}.",
        )
        require_limits(self.idle_minutes, self.budget)
        require(
            not self.bucket or BUCKET.fullmatch(self.bucket),
            f"--bucket {self.bucket!r} cannot be a bucket's name: 3 to 63 small letters, digits and hyphens, "
            "the first and the last no hyphen.",
        )

    def _check_tags(self) -> None:
        most = MOST_TAGS - OWN_TAGS
        require(
            len(self.tags) <= most,
            f"--additional-tags has {len(self.tags)} tags, and {most} are the most: EC2 keeps {MOST_TAGS} of "
            f"a resource, and {OWN_TAGS} of them are sparknet-ec2's own.",
        )
        for key, value in self.tags.items():
            owner = next((one for one in ("aws:", "sparknet:") if key.lower().startswith(one)), "")
            require(not owner, f"--additional-tags {key}: keys that begin with {owner} belong to it alone.")
            require(
                key != "Name",
                "--additional-tags Name: sparknet-ec2 names each node for its cluster and role.",
            )
            require(
                0 < len(key) <= MOST_KEY_CHARACTERS and len(value) <= MOST_VALUE_CHARACTERS,
                f"--additional-tags {key[:40]}: a key has at most {MOST_KEY_CHARACTERS} characters, and its "
                f"value {MOST_VALUE_CHARACTERS}.",
            )

    def _check_places(self) -> None:
        for zone in self.zones:
            require(
                zone.startswith(self.region) and len(zone) > len(self.region),
                f"--zone {zone} is not in the region {self.region}; its zones are named like {self.region}a.",
            )

    def _check_types(self) -> None:
        require(self.instance_types, "--instance-type names no type.")
        for name in (*self.instance_types, self.master_instance_type):
            require(INSTANCE_TYPE.fullmatch(name), f"{name!r} is not an instance type like g6.xlarge.")

    @property
    def nodes(self) -> int:
        """Workers and the master."""
        return self.workers + 1

    @property
    def most_replaced(self) -> int:
        """How many nodes that fail are replaced before the whole is given up."""
        if self.replacements is not None:
            return self.replacements
        return self.nodes if self.repair else max(1, self.nodes // NODES_A_REPLACEMENT)
