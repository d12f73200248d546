"""What calls may use of the simulated cloud: its state, and the machines it makes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from infra.local.hosts.machine import Machine, MachineFacts
from infra.local.models.capacity import Capacity
from infra.local.models.clock import Clock
from infra.local.models.instances import Instances
from infra.local.models.lifecycle import Lifecycle
from infra.local.models.placement import PlacementGroups
from infra.local.models.roles import Roles
from infra.local.models.saved_images import SavedImages
from infra.local.models.scenario import Scenario
from infra.local.models.tokens import Tokens
from infra.local.models.volumes import VolumeFolders


class Blocks(Protocol):
    """Networks for VPCs."""

    def claim(self) -> str:
        """A block (CIDR) that no other cloud of this machine has. Raises SetupError if there is none."""
        ...


class Addresses(Protocol):
    """Public addresses."""

    def next(self) -> str:
        """One that nobody has. Raises SetupError if there is none."""
        ...


class Cloud(Protocol):
    """The first argument of every call; ``simulation.py`` has the real one."""

    clock: Clock
    tokens: Tokens
    capacity: Capacity
    instances: Instances
    lifecycle: Lifecycle
    volumes: VolumeFolders
    saved_images: SavedImages
    placement_groups: PlacementGroups
    roles: Roles

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held by whoever reads or changes moto's models; calls are made with it held."""
        ...

    @property
    def scenario(self) -> Scenario: ...

    @property
    def blocks(self) -> Blocks: ...

    @property
    def public_addresses(self) -> Addresses: ...

    @property
    def has_hosts(self) -> bool:
        """False if instances are states only."""
        ...

    def files_of(self, instance_id: str) -> Path:
        """The folder in which a host keeps its files."""
        ...

    def machine_for(self, facts: MachineFacts) -> Machine: ...

    def metadata_url(self, instance_id: str) -> str: ...
