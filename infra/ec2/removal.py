"""Removal: takes away whatever still carries a cluster's tag, in the order EC2 allows.

Machines go first, whatever else is refused: they cost most. The list is the proof: a cluster is gone when two
listings in a row find nothing. What EC2 will not remove is named with whoever holds on to it as soon as
nothing else is left to be done.
"""

from __future__ import annotations

from typing import Any

from infra.ec2 import cleanup, holders, nodes, profiles
from infra.ec2.cleanup import Resource
from infra.ec2.error_codes import explain
from infra.ec2.region import ApiError, Region, matches
from infra.errors import CredentialsError, InfraError, Interrupted, Leftovers
from infra.events import Emit, Removed
from infra.polling import Pending, poll

DEADLINE_SECONDS = 600.0
EMPTY_LISTINGS = 2  # in a row prove that nothing is left
REFUSED_LISTINGS = 3  # in a row prove that what is left cannot be known
SETTLE_SECONDS = 1.0  # between two listings: what a call made whose answer was lost turns up meanwhile

_REMOVALS = {
    cleanup.SPOT_REQUEST: ("cancel_spot_instance_requests", "SpotInstanceRequestIds"),
    cleanup.VOLUME: ("delete_volume", "VolumeId"),
    cleanup.GROUP: ("delete_security_group", "GroupId"),
    cleanup.TEMPLATE: ("delete_launch_template", "LaunchTemplateId"),
    cleanup.KEY: ("delete_key_pair", "KeyName"),
    cleanup.INTERFACE: ("delete_network_interface", "NetworkInterfaceId"),
    cleanup.ADDRESS: ("release_address", "AllocationId"),
    cleanup.PLACEMENT: ("delete_placement_group", "GroupName"),
    cleanup.SNAPSHOT: ("delete_snapshot", "SnapshotId"),
}
_BY_NAME = (cleanup.KEY, cleanup.PLACEMENT)
_ABSENT = (
    "*.NotFound",
    "InvalidLaunchTemplate*",
    "InvalidSpotInstanceRequestID.*",
    "InvalidPlacementGroup.Unknown",
)
_IN_USE = (  # for a while, if nobody else holds on to it: the removal is tried again after the next listing
    "DependencyViolation",
    "VolumeInUse",
    "IncorrectState",
    "InvalidParameterValue",  # of a network interface, while it is
    "InvalidNetworkInterface.InUse",
    "InvalidIPAddress.InUse",
    "InvalidPlacementGroup.InUse",
    "InvalidSnapshot.InUse",
)


def remove_all(
    region: Region,
    cluster: str,
    emit: Emit,
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
    settle_seconds: float = SETTLE_SECONDS,
    keep: str = "",
) -> list[Resource]:
    """Remove all of ``cluster`` but the resource ``keep``, and return what that was.

    Raises Leftovers if something stays (at once where EC2 will not remove it, or else at the deadline), and
    the error of a call that is refused. An error and an interrupt name what was still there.
    """
    removal = _Removal(region, cluster, emit, deadline_seconds, keep)
    try:
        return poll(removal.step, deadline_seconds=deadline_seconds, every=settle_seconds, sleep=region.sleep)
    except Interrupted as stop:
        raise Interrupted(f"{stop} ({removal.last_seen})") from None
    except Leftovers:
        raise
    except InfraError as error:
        error.args = (f"{error}\n  {removal.last_seen}",)
        raise


class _Removal:
    """What is known of a removal that is under way."""

    def __init__(self, region: Region, cluster: str, emit: Emit, seconds: float, keep: str) -> None:
        self._region, self._cluster, self._emit, self._seconds = region, cluster, emit, seconds
        self._keep = keep
        self._seen: dict[str, Resource] = {}
        self._gone: set[str] = set()  # ids whose removal the caller has heard of
        self._ended: set[str] = set()  # ids of instances that EC2 was asked to end
        self._stuck: dict[str, str] = {}  # id -> why it stays, and what to do
        self._empty_listings = self._refused_listings = 0
        self._has_listed = False

    @property
    def last_seen(self) -> str:
        """What was there when it was last looked, in words."""
        if not self._has_listed:
            return f"what there is of {self._cluster} is not known"
        left = [one for one in self._seen.values() if one.id not in self._gone]
        return f"still there: {_names(left)}" if left else "nothing was still there"

    def step(self) -> list[Resource] | Pending:
        """Look, and remove what can be removed now. The resources there were, once nothing is left."""
        machines = self._end_machines()
        others, refused = self._list_others()
        self._note([*machines, *others], refused)
        if not machines and not others and not refused:
            # EC2's listings lag behind: what was made a moment ago may be missing from one of them
            self._empty_listings += 1
            if self._empty_listings == EMPTY_LISTINGS:
                return list(self._seen.values())
        else:
            self._empty_listings = 0
        is_free = all(one.id in self._stuck for one in machines)  # or else the rest is in use
        for one in others:
            if is_free or one.kind == cleanup.SPOT_REQUEST:
                self._remove(one)
        left = [*machines, *others]
        self._refused_listings = self._refused_listings + 1 if refused else 0
        is_over = self._refused_listings >= REFUSED_LISTINGS if refused else bool(left)
        if is_over and all(one.id in self._stuck for one in left):
            raise self._stuck_error(left, refused)
        return Pending(lambda: Leftovers(self._overdue(left)))

    def _end_machines(self) -> list[Resource]:
        """End the instances and cancel the spot requests; those that are still there."""
        try:
            machines = cleanup.instances(self._region, self._cluster)
        except InfraError:
            # the tags tell their ids as well: a refused listing must not keep them alive
            nodes.terminate(self._region, cleanup.tagged_instances(self._region, self._cluster))
            raise
        new = [one.id for one in machines if one.id not in self._ended]
        if new:
            self._ended.update(new)
            for one in nodes.terminate(self._region, new):
                self._ended.discard(one)
                self._stuck[one] = (
                    "EC2 protects it against termination\n      try: aws ec2 modify-instance-attribute "
                    f"--no-disable-api-termination --instance-id {one} --region {self._region.name}"
                )
        return machines

    def _list_others(self) -> tuple[list[Resource], dict[str, InfraError]]:
        """All that is no instance, and, of each kind that could not be listed, why."""
        found: list[Resource] = []
        refused: dict[str, InfraError] = {}
        for kind, listing in cleanup.OTHERS.items():
            try:
                found += [one for one in listing(self._region, self._cluster) if one.id != self._keep]
            except InfraError as error:
                refused[kind] = error
        return found, refused

    def _note(self, left: list[Resource], refused: dict[str, InfraError]) -> None:
        still = {one.id for one in left}
        for one in self._seen.values():
            if one.id not in still and one.id not in self._gone and one.kind not in refused:
                self._gone.add(one.id)
                self._emit(Removed(kind=one.kind, id=one.id))
        self._seen.update({one.id: one for one in left})
        self._has_listed = True

    def _remove(self, one: Resource) -> None:
        """Ask EC2 to remove it; where it will not, ``_stuck`` says why."""
        self._stuck.pop(one.id, None)
        if one.kind == cleanup.PROFILE:
            self._remove_profile(one)
            return
        operation, argument = _REMOVALS[one.kind]
        value: Any = one.name if one.kind in _BY_NAME else one.id
        named: dict[str, Any] = {argument: [value] if one.kind == cleanup.SPOT_REQUEST else value}
        try:
            self._region.attempt(operation, **named)
        except ApiError as error:
            if matches(error.code, _ABSENT):
                return
            if not matches(error.code, _IN_USE):
                self._stuck[one.id] = str(explain(error.code, error.message, operation))
                return
            found = holders.of(self._region, one, ended=self._ended)
            if found:
                self._stuck[one.id] = "; ".join(
                    f"{holder.name} uses it\n      try: {holder.cure} --region {self._region.name}"
                    for holder in found
                )

    def _remove_profile(self, one: Resource) -> None:
        try:
            profiles.remove(self._region, one.name)
        except InfraError as error:
            self._stuck[one.id] = str(error)

    def _stuck_error(self, left: list[Resource], refused: dict[str, InfraError]) -> InfraError:
        lines = [f"{_name(one)}: {self._stuck[one.id]}" for one in left]
        lines += [f"{kind}s cannot be listed: {error}" for kind, error in refused.items()]
        text = "\n".join(f"    {line}" for line in lines)
        head = (
            f"{len(left)} resources of {self._cluster} are still there"
            if left
            else "It is not known what is left"
        )
        kinds = {type(error) for error in refused.values()}
        error = CredentialsError if kinds == {CredentialsError} and not left else Leftovers
        return error(
            f"{head if left else 'It is not known what is left'}:\n{text}\n  then run destroy again."
        )

    def _overdue(self, left: list[Resource]) -> str:
        return (
            f"After {self._seconds:g} s, {len(left)} resources of {self._cluster} are still there: "
            f"{_names(left)}; run destroy again."
        )


def _names(left: list[Resource]) -> str:
    return ", ".join(f"{one.kind} {one.id}" for one in left)


def _name(one: Resource) -> str:
    return f"{one.kind} {one.id}" + (f" ({one.name})" if one.name else "")
