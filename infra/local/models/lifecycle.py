"""Lifecycle: from pending to terminated, each state reached only when the instance's machine is there.

    pending --- the machine answers ---> running --- StopInstances ---> stopping ---> stopped
                                            |                                           |
       TerminateInstances, interruption, the machine died, shutdown from inside  <------+
                                            v
                                      shutting-down --- no process is left ---> terminated

Whoever calls holds the simulation's lock; what takes time happens in threads that take it for each change of
state.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from copy import copy
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import StateReason

from infra.local.hosts.machine import Machine
from infra.local.models import volumes
from infra.local.models.capacity import Capacity, CapacityPool
from infra.local.models.clock import Clock
from infra.local.models.instances import Entry, Instances
from infra.local.models.metadata import Metadata
from infra.local.models.scenario import Scenario
from infra.local.models.spot_request import request_of

STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
ALIVE = ("pending", "running", "stopping", "stopped")
BOOT_DEADLINE_SECONDS = 60.0
WATCH_SECONDS = 0.1
THREADS = 8
KEPT_SECONDS = 3600.0  # simulated: how long EC2 shows a terminated instance

USER = StateReason("Client.UserInitiatedShutdown: User initiated shutdown", "Client.UserInitiatedShutdown")
INSIDE = StateReason(
    "Client.InstanceInitiatedShutdown: Instance initiated shutdown", "Client.InstanceInitiatedShutdown"
)
DIED = StateReason("Server.InternalError: Internal error: the machine died", "Server.InternalError")
RECLAIMED = StateReason(
    "Server.SpotInstanceTermination: Spot instance termination", "Server.SpotInstanceTermination"
)
#: The words of StateTransitionReason, before the moment.
INITIATORS = {USER.code: "User initiated", RECLAIMED.code: "Service initiated"}

log = logging.getLogger(__name__)


class Lifecycle:
    """What moves instances from state to state."""

    def __init__(
        self,
        *,
        instances: Instances,
        clock: Clock,
        capacity: Capacity,
        metadata: Metadata,
        lock: AbstractContextManager[object],
        scenario: Callable[[], Scenario],  # the one in force
    ) -> None:
        self._instances, self._clock, self._capacity, self._metadata = instances, clock, capacity, metadata
        self._lock, self._scenario = lock, scenario
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="machines")
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._watcher.start()

    def begin(self, instance: Any, machine: Machine, pool: CapacityPool) -> None:
        """Boot a new instance."""
        entry = Entry(instance, machine, pool)
        self._instances.add(entry)
        self._take(entry)
        _set_state(instance, "pending")
        self._do(self._boot, entry)

    def terminate(self, instance: Any, reason: StateReason = USER) -> Any:
        """The state before. Terminating twice changes nothing."""
        previous = copy(instance._state)
        if instance.state in ALIVE:
            entry = self._instances.entry(instance.id)
            _set_state(instance, "shutting-down")
            self._explain(instance, reason)
            self._close_spot_request(instance, reason)
            self._do(self._finish, entry)
        return previous

    def stop(self, instance: Any, reason: StateReason = USER) -> Any:
        previous = copy(instance._state)
        _refuse_unless(instance, "pending", "running", "stopping", "stopped")
        if instance.lifecycle == "spot":
            raise EC2ClientError(
                "UnsupportedOperation",
                f"You can't stop the Spot Instance '{instance.id}' because it is associated with a one-time "
                "Spot Instance request. You can only stop Spot Instances associated with persistent Spot "
                "Instance requests.",
            )
        if instance.state in ("pending", "running"):
            _set_state(instance, "stopping")
            self._explain(instance, reason)
            self._do(self._halt, self._instances.entry(instance.id))
        return previous

    def start(self, instance: Any) -> Any:
        previous = copy(instance._state)
        _refuse_unless(instance, "pending", "running", "stopped")
        if instance.state == "stopped":
            entry = self._instances.entry(instance.id)
            self._capacity.available(entry.pool, 1, at_least=1)
            self._take(entry)
            for interface in instance.nics.values():
                interface.start()  # a new public address
            _set_state(instance, "pending")
            instance._reason, instance.state_reason = "", StateReason()
            instance.launch_time = self._clock.utcnow()  # EC2 tells of the last start alone
            self._do(self._boot, entry)
        return previous

    def reboot(self, instance: Any) -> None:
        _refuse_unless(instance, "running")
        self._threads.submit(self._instances.machine(instance.id).reboot)

    def interrupt(self, instance_id: str, notice_seconds: float | None = None) -> str:
        """Reclaim a spot instance: the notice in its metadata now, its end later. When that is."""
        instance = self._instances.find(instance_id)
        request = request_of(instance)
        if request is None or instance.state not in ("pending", "running"):
            raise EC2ClientError("InvalidParameterValue", f"{instance_id} is no spot instance that runs")
        notice = self._scenario().notice_seconds if notice_seconds is None else notice_seconds
        when = self._clock.timestamp(notice)
        self._metadata.announce_interruption(instance_id, when)
        request.set_status("marked-for-termination", "The instance is marked for termination.")
        self._clock.after(notice, lambda: self._reclaim(instance))
        return when

    def end(self) -> None:
        """End every machine; nothing of them is left."""
        self._ended.set()
        self._watcher.join(5)
        self._threads.shutdown(wait=True, cancel_futures=True)
        with ThreadPoolExecutor(THREADS) as threads:
            for entry in self._instances.entries:
                threads.submit(entry.machine.stop, orderly=False)
        for entry in self._instances.entries:
            entry.machine.remove()

    def _do(self, work: Callable[..., None], *arguments: Any) -> None:
        self._threads.submit(self._guarded, work, *arguments)

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception:
            log.exception("%s failed", work.__name__)

    def _boot(self, entry: Entry) -> None:
        began = self._clock.now()
        try:
            with entry.changing:
                if entry.instance.state != "pending":
                    return  # terminated or stopped before its turn came
                entry.machine.start()
                entry.is_started = True
                self._wait_until_it_answers(entry)
        except OSError as error:
            self._give_up(entry, error)
            return
        left = self._scenario().boot_seconds - (self._clock.now() - began)
        if left > 0:
            self._clock.after(left, lambda: self._run(entry))
        else:
            self._run(entry)

    def _give_up(self, entry: Entry, error: OSError) -> None:
        why = f"Server.InternalError: Internal error on launch: {error}"
        with self._lock:
            self.terminate(entry.instance, StateReason(why, "Server.InternalError"))

    def _wait_until_it_answers(self, entry: Entry) -> None:
        deadline = time.monotonic() + BOOT_DEADLINE_SECONDS
        while not entry.machine.answers:
            if self._ended.is_set() or entry.instance.state != "pending":
                return
            if entry.machine.exit_status is not None or time.monotonic() > deadline:
                raise OSError("the machine did not come up")
            time.sleep(0.01)

    def _run(self, entry: Entry) -> None:
        with self._lock:
            if entry.instance.state == "pending":
                _set_state(entry.instance, "running")

    def _finish(self, entry: Entry) -> None:
        instance = entry.instance
        self._guarded(self._remove_machine, entry)
        with self._lock:
            volumes.release(instance.ec2_backend, instance)
            for interface in list(instance.nics.values()):
                interface.stop()
                interface.delete()  # the address is free again, now that nothing listens on it
            instance._private_ips.clear()  # or moto frees it once more, under its next owner
            instance.ec2_backend.iam_instance_profile_associations.pop(instance.id, None)
            self._give_back(entry)
            _set_state(instance, "terminated")
        self._clock.after(KEPT_SECONDS, lambda: self._forget(instance))

    def _remove_machine(self, entry: Entry) -> None:
        with entry.changing:
            entry.machine.stop(orderly=entry.instance.state_reason is not DIED)
            entry.machine.remove()

    def _halt(self, entry: Entry) -> None:
        with entry.changing:
            entry.is_started = False
            entry.machine.stop(orderly=True)
        with self._lock:
            for interface in entry.instance.nics.values():
                interface.stop()  # the public address goes, the private one stays
            self._give_back(entry)
            if entry.instance.state == "stopping":
                _set_state(entry.instance, "stopped")

    def _take(self, entry: Entry) -> None:
        self._capacity.take(entry.pool, 1)
        entry.holds_capacity = True

    def _give_back(self, entry: Entry) -> None:
        if entry.holds_capacity:
            self._capacity.give_back(entry.pool)
        entry.holds_capacity = False

    def _forget(self, instance: Any) -> None:
        with self._lock:
            self._instances.forget(instance.id)
            reservations = instance.ec2_backend.reservations
            for reservation in list(reservations.values()):
                if instance in reservation.instances:
                    reservation.instances.remove(instance)
                if not reservation.instances:
                    del reservations[reservation.id]

    def _reclaim(self, instance: Any) -> None:
        with self._lock:
            self.terminate(instance, RECLAIMED)

    def _close_spot_request(self, instance: Any, reason: StateReason) -> None:
        request = request_of(instance)
        if request is None:
            return
        if reason is RECLAIMED:
            request.close(
                "instance-terminated-no-capacity", "The instance was terminated for want of capacity."
            )
        else:
            request.close(
                "instance-terminated-by-user", "Spot Instance terminated due to user-initiated termination."
            )

    def _explain(self, instance: Any, reason: StateReason) -> None:
        who = INITIATORS.get(reason.code, reason.code)
        instance._reason = f"{who} ({self._clock.utcnow():%Y-%m-%d %H:%M:%S} GMT)"
        instance.state_reason = reason

    def _watch(self) -> None:
        """Notice machines that ended by themselves."""
        while not self._ended.wait(WATCH_SECONDS):
            for entry in filter(_has_ended, self._instances.entries):
                with self._lock:
                    self._on_end(entry)

    def _on_end(self, entry: Entry) -> None:
        instance = entry.instance
        if instance.state not in ("pending", "running"):
            return
        shut_down = entry.machine.exit_status == 0
        if (
            shut_down
            and instance.instance_initiated_shutdown_behavior == "stop"
            and instance.lifecycle != "spot"
        ):
            self.stop(instance, INSIDE)
        else:
            self.terminate(instance, INSIDE if shut_down else DIED)


def _has_ended(entry: Entry) -> bool:
    """True if the machine ended and nobody asked for it."""
    is_alive = entry.instance.state in ("pending", "running")
    return is_alive and entry.is_started and entry.machine.exit_status is not None


def _set_state(instance: Any, name: str) -> None:
    instance._state.name, instance._state.code = name, STATES[name]


def _refuse_unless(instance: Any, *states: str) -> None:
    if instance.state not in states:
        raise EC2ClientError(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is not in a state from which it can be changed so: it is "
            f"{instance.state}.",
        )
