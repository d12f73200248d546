"""Placement groups, which moto does not have, by region and name."""

from __future__ import annotations

from typing import Any

from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.utils import random_id


class PlacementGroup(TaggedEC2Resource):
    """One group of one region."""

    def __init__(self, backend: Any, name: str, strategy: str, partition_count: int | None) -> None:
        self.ec2_backend = backend
        self.id = random_id(prefix="pg")
        self.group_id, self.group_name, self.strategy, self.state = self.id, name, strategy, "available"
        self.partition_count = partition_count
        self.group_arn = f"arn:aws:ec2:{backend.region_name}:{backend.account_id}:placement-group/{name}"


class PlacementGroups:
    """The groups of every region, by name."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, PlacementGroup]] = {}

    def of(self, region: str) -> dict[str, PlacementGroup]:
        return self._groups.setdefault(region, {})
