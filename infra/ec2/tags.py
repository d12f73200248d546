"""Tags: the only memory a cluster has. Every resource carries them from the call that makes it."""

from __future__ import annotations

import getpass
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import metadata

CLUSTER = "sparknet:cluster"
ROLE = "sparknet:role"
OWNER = "sparknet:owner"
CREATED = "sparknet:created"
EXPIRES = "sparknet:expires"
VERSION = "sparknet:version"
GENERATION = "sparknet:generation"
STATE = "sparknet:state"  # on the security group alone
READY = "ready"
NEVER = "never"  # expires
REMOVING = "removing"  # a destroy has begun
WORKERS = "sparknet:workers"  # there as well: how many the last launch was for
BUCKET = "sparknet:bucket"  # there as well, its name; and on a bucket that was made for clusters
ENDED_DOLLARS = "sparknet:ended-dollars"  # there as well: of the nodes that have ended, and until when
ENDED = "sparknet:ended-{}"  # there as well: the last of them
ENDED_BY = "sparknet:ended-by"  # of a node: who or what ends it, in words
IDLE = "sparknet:idle-minutes"  # missing: it does not end for want of jobs
BUDGET = "sparknet:budget"  # dollars; missing: no limit but the time
BUDGET_ENDS = "sparknet:budget-ends"  # when that may be spent, at the most that the nodes can cost
SPENT = "sparknet:spent"  # on the group: see infra.budget
NUMBERS = "sparknet:numbers"  # and there: the workers' numbers, as infra.numbers writes them
HEAL = "sparknet:heal"  # and there: whether a healer is on; missing where it never was
HEALER = "sparknet:healer"  # and there: what the healer did or lacks, and when, for people
ON, OFF = "on", "off"
NODE = "sparknet:node"  # a node's name, for its whole life

TagList = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class ClusterTags:
    """What every resource of one cluster is tagged with.

    ``generation`` is drawn at random for one launch, kept through its interruptions, and part of every
    ClientToken: a launch run again gets the instances of its first attempt, and one of another day never
    those that are dead.
    """

    cluster: str
    generation: str
    created: str
    expires: str
    owner: str = ""
    version: str = ""
    idle_minutes: float = 0.0
    budget: float | None = None
    budget_ends: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def new(
        cls,
        cluster: str,
        generation: str,
        *,
        max_hours: float,
        extra: Mapping[str, str],
        idle_minutes: float = 0.0,
        budget: float | None = None,
        budget_ends: str = "",
        now: datetime | None = None,
    ) -> ClusterTags:
        """Of a cluster that begins ``now``, by the clock of the cloud (this machine's if it is None)."""
        now = (now or datetime.now(UTC)).replace(microsecond=0)
        expires = (now + timedelta(hours=max_hours)).isoformat() if max_hours else NEVER
        return cls(
            cluster=cluster,
            generation=generation,
            created=now.isoformat(),
            expires=expires,
            owner=owner(),
            version=_version(),
            idle_minutes=idle_minutes,
            budget=budget,
            budget_ends=budget_ends,
            extra=dict(extra),
        )

    def as_list(self, role: str = "") -> TagList:
        """As the API takes them; ``role`` is "master", "worker" or nothing for what belongs to all nodes."""
        pairs = {
            "Name": f"{self.cluster}-{role}" if role else self.cluster,
            CLUSTER: self.cluster,
            ROLE: role,
            OWNER: self.owner,
            CREATED: self.created,
            EXPIRES: self.expires,
            VERSION: self.version,
            GENERATION: self.generation,
            **limits(self.idle_minutes, self.budget),
            BUDGET_ENDS: self.budget_ends,
        }
        own = {key: value for key, value in pairs.items() if value}
        return [{"Key": key, "Value": value} for key, value in {**self.extra, **own}.items()]

    def specification(self, kinds: tuple[str, ...], role: str = "") -> list[dict[str, object]]:
        """A ``TagSpecifications`` argument for resources of ``kinds``."""
        return [{"ResourceType": kind, "Tags": self.as_list(role)} for kind in kinds]

    def token(self, *parts: object) -> str:
        """A ClientToken (64 characters) for the thing ``parts`` describe, the same in every repetition."""
        text = "|".join([self.cluster, self.generation, *map(str, parts)])
        return hashlib.sha256(text.encode()).hexdigest()


def of_cluster(cluster: str | None) -> list[dict[str, object]]:
    """A ``Filters`` argument: what belongs to ``cluster``, or to any cluster of ours if it is None."""
    if cluster is None:
        return [{"Name": "tag-key", "Values": [CLUSTER]}]
    return [{"Name": f"tag:{CLUSTER}", "Values": [cluster]}]


def limits(idle_minutes: float, budget: float | None) -> dict[str, str]:
    """The tags of what ends a cluster besides its time; empty for what does not."""
    return {IDLE: f"{idle_minutes:g}" if idle_minutes else "", BUDGET: f"{budget:g}" if budget else ""}


def moment(expires: str) -> datetime | None:
    """When a cluster with that tag ends itself; None for never."""
    return None if expires in ("", NEVER) else datetime.fromisoformat(expires)


def as_dict(tags: TagList | None) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags or []}


def owner() -> str:
    """The user of this machine, as tags name them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


def _version() -> str:
    try:
        return metadata.version("sparknet-ec2")
    except metadata.PackageNotFoundError:
        return "source"
