"""Instances: every instance of this cloud that is not forgotten yet, with its machine.

Whoever reads or changes them holds the simulation's lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from moto.ec2.exceptions import InvalidInstanceIdError

from infra.local.hosts import share
from infra.local.hosts.machine import Machine
from infra.local.models.capacity import CapacityPool


@dataclass
class Entry:
    """An instance of moto's and its machine."""

    instance: Any
    machine: Machine
    pool: CapacityPool
    is_started: bool = False  # the machine's exit status is of this boot, not of the one before
    holds_capacity: bool = False
    share: dict[str, str] | None = None  # of this machine, once it is asked for; see ``Instances.share_of``
    changing: threading.Lock = field(default_factory=threading.Lock)  # held while the machine boots or ends


class Instances:
    """Instances by id. Iterating gives moto's."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __iter__(self) -> Iterator[Any]:
        return (entry.instance for entry in self.entries)

    @property
    def entries(self) -> list[Entry]:
        return list(self._entries.values())

    def share_of(self, instance_id: str) -> dict[str, str]:
        """Its share of this machine, for life: that of the others there are, or an equal part of the whole.

        Raises InvalidInstanceID.NotFound.
        """
        entry = self.entry(instance_id)
        if entry.share is None:
            living = [one for one in self.entries if one.instance.state in ("pending", "running")]
            known = (one.share for one in living if one.share is not None)
            entry.share = next(known, None) or share.environment(len(living))
        return entry.share

    def add(self, entry: Entry) -> None:
        self._entries[entry.instance.id] = entry

    def forget(self, instance_id: str) -> None:
        self._entries.pop(instance_id, None)

    def get(self, instance_id: str) -> Entry | None:
        return self._entries.get(instance_id)

    def entry(self, instance_id: str) -> Entry:
        """Raises InvalidInstanceID.NotFound."""
        if instance_id not in self._entries:
            raise InvalidInstanceIdError(instance_id)
        return self._entries[instance_id]

    def find(self, instance_id: str) -> Any:
        """moto's instance. Raises InvalidInstanceID.NotFound."""
        return self.entry(instance_id).instance

    def machine(self, instance_id: str) -> Machine:
        """Raises InvalidInstanceID.NotFound."""
        return self.entry(instance_id).machine
