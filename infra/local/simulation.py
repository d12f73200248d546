"""Simulation: one simulated AWS, made of its models, its hosts, and the calls that replace moto's."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import moto.ec2.models
import moto.iam.models

from infra.local.calls import (  # noqa: F401 - each registers its patches
    create_fleet,
    general,
    iam,
    images,
    instances,
    key_pairs,
    launch_templates,
    network,
    placement_groups,
    service_quotas,
    spot_prices,
    spot_requests,
    tags,
    times,
    validation,
    volumes,
)
from infra.local.calls.patches import patch
from infra.local.hosts.machine import Machine, MachineFacts, NoMachine
from infra.local.hosts.process_machine import ProcessMachine
from infra.local.hosts.processes import Inits
from infra.local.models.addresses import LoopbackBlocks, PublicAddresses
from infra.local.models.call_log import CallLog
from infra.local.models.capacity import Capacity
from infra.local.models.clock import Clock
from infra.local.models.consistency import Consistency
from infra.local.models.faults import Faults
from infra.local.models.instances import Instances
from infra.local.models.lifecycle import Lifecycle
from infra.local.models.metadata import Metadata
from infra.local.models.placement import PlacementGroups
from infra.local.models.quotas import Quotas
from infra.local.models.roles import Roles
from infra.local.models.saved_images import SavedImages
from infra.local.models.scenario import Scenario
from infra.local.models.tokens import Tokens
from infra.local.models.volumes import VolumeFolders

if TYPE_CHECKING:
    from infra.local.hosts.namespaces.driver import Namespaces

ACCOUNT = "123456789012"


class Simulation:
    """The state of the cloud. ``lock`` is held by whoever reads or changes moto's models."""

    def __init__(
        self, folder: Path, runtime: Path, scenario: Scenario, access_key_id: str, region: str
    ) -> None:
        self.folder, self.runtime = folder, runtime
        self.scenario, self.access_key_id, self.region = scenario, access_key_id, region
        self.url = ""  # known once the server listens
        self.lock = threading.RLock()
        self.clock = Clock(scenario.speed)
        self.call_log = CallLog()
        self.consistency = Consistency(self.clock.now)
        self.faults = Faults(scenario.faults)
        self.capacity = Capacity(scenario.capacity, scenario.spot_prices, Quotas(scenario.quotas))
        self.tokens = Tokens()
        self.instances = Instances()
        self.roles = Roles(moto.iam.models.iam_backends[ACCOUNT]["aws"])
        self.metadata = Metadata(self.instances, self.clock, self.roles)
        self.namespaces = self._namespaces()
        self.blocks = self.namespaces or LoopbackBlocks(str(folder))
        self.public_addresses = self.namespaces or PublicAddresses()
        self.volumes = VolumeFolders(folder / "volumes", are_real=self.has_hosts)
        self.saved_images = SavedImages(folder / "images")
        self.placement_groups = PlacementGroups()
        self._inits = Inits()
        patch.install(self)
        self.lifecycle = Lifecycle(
            instances=self.instances,
            clock=self.clock,
            capacity=self.capacity,
            metadata=self.metadata,
            lock=self.lock,
            scenario=lambda: self.scenario,
        )
        moto.ec2.models.ec2_backends[ACCOUNT][region]  # made now, so that the first call does not wait
        if self.namespaces is not None:
            self.namespaces.serve()

    @property
    def has_hosts(self) -> bool:
        return self.scenario.hosts != "none"

    @property
    def caller_address(self) -> str:
        """The addresses, as a range, from which hosts see connections of this machine."""
        return self.namespaces.caller_address if self.namespaces else "127.0.0.1/32"

    @property
    def url_for_hosts(self) -> str:
        """Where hosts reach the simulated AWS."""
        return self.namespaces.url if self.namespaces else self.url

    def machine_for(self, facts: MachineFacts) -> Machine:
        if not self.has_hosts:
            return NoMachine()
        root = self.files_of(facts.instance_id)
        if self.namespaces is not None:
            return self.namespaces.machine_for(facts, root)
        return ProcessMachine(facts, root, self.runtime, self.folder, self._inits)

    def files_of(self, instance_id: str) -> Path:
        """The folder in which a host keeps its files."""
        return self.folder / "hosts" / instance_id

    def metadata_url(self, instance_id: str) -> str:
        return f"{self.url}/_sparknet/imds/{instance_id}"

    def end(self) -> None:
        """End all machines, and everything that runs here."""
        self.clock.end()
        with contextlib.suppress(RuntimeError):
            self.lifecycle.end()
        if self.namespaces is not None:
            self.namespaces.end()

    def _namespaces(self) -> Namespaces | None:
        if self.scenario.hosts != "namespaces":
            return None
        from infra.local.hosts.namespaces.driver import Namespaces

        return Namespaces(self)
