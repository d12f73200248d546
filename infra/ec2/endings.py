"""Endings: what the security group's tags say of nodes that have ended, for whoever looks from elsewhere.

    sparknet:ended-dollars   12.3456 2026-11-30T09:30:00+00:00     of all that ended until then
    sparknet:ended-1         worker-3 i-0a1b g6.xlarge us-east-1a spot 2026-11-30T08:10:00+00:00
                             2026-11-30T09:12:00+00:00 reclaimed by EC2     the last; -2 the one before

A value of a tag has 256 characters, and a resource 50 tags: the last few by name, the others as their sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from infra.ec2 import tags
from infra.ec2.region import Region
from infra.errors import InfraError
from infra.spec import MOST_VALUE_CHARACTERS

NAMED = 3  # of the last endings


@dataclass(frozen=True, kw_only=True)
class Ending:
    """A node that has ended; moments are ISO 8601."""

    name: str
    id: str
    instance_type: str
    zone: str
    purchase: str
    launched: str
    ended: str
    why: str

    def __str__(self) -> str:
        facts = (self.name, self.id, self.instance_type, self.zone, self.purchase, self.launched, self.ended)
        return " ".join((*facts, self.why))[:MOST_VALUE_CHARACTERS]


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What the nodes cost that had ended ``until`` a moment; ``last``: the newest of them first."""

    dollars: float = 0.0
    until: datetime | None = None
    last: tuple[Ending, ...] = ()


def read(known: Mapping[str, str]) -> Spent:
    """What the security group's tags say; nothing where they say nothing that can be read."""
    dollars, _, until = known.get(tags.ENDED_DOLLARS, "").partition(" ")
    named = (known.get(tags.ENDED.format(number), "") for number in range(1, NAMED + 1))
    last = tuple(_ending(text) for text in named if text.count(" ") >= len(_FIELDS))
    try:
        return Spent(dollars=float(dollars), until=datetime.fromisoformat(until), last=last)
    except ValueError:
        return Spent(last=last)


def write(region: Region, group: str, spent: Spent) -> bool:
    """Put it into the tags of ``group``; False where that is not allowed, or the group is gone."""
    if spent.until is None:
        return False
    values = {tags.ENDED_DOLLARS: f"{spent.dollars:.4f} {spent.until.isoformat()}"}
    values |= {tags.ENDED.format(number): str(one) for number, one in enumerate(spent.last[:NAMED], 1)}
    try:
        region.change("create_tags", Resources=[group], Tags=_as_list(values))
    except InfraError:
        return False
    return True


def say_why(region: Region, ids: Sequence[str], why: str) -> None:
    """Note on nodes, which are about to be ended, why. That it cannot be noted keeps no node alive."""
    try:
        region.change("create_tags", Resources=list(ids), Tags=_as_list({tags.ENDED_BY: why}))
    except InfraError:
        return


_FIELDS = ("name", "id", "instance_type", "zone", "purchase", "launched", "ended")


def _ending(text: str) -> Ending:
    *facts, why = text.split(" ", len(_FIELDS))
    return Ending(**dict(zip(_FIELDS, facts, strict=True)), why=why)


def _as_list(values: Mapping[str, str]) -> tags.TagList:
    return [{"Key": key, "Value": value[:MOST_VALUE_CHARACTERS]} for key, value in values.items()]
