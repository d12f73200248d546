"""Healing: puts others in the place of workers that are lost, again and again, as the cluster's healer does.

A worker is lost when EC2 ended it or is about to (a notice), and silent when its machine runs and Spark's
master does not know it: one that was bought by a healer that was killed, or that does not come back from a
reboot. What is bought comes from where the cluster is, or else from any pool that its launch could buy from,
in the same ways and under the same limits. The newcomers pass the checks of a launch beside the master;
nothing is done on the other workers.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from infra import growth, provision, replacement, shrinking
from infra.cloud import Cloud, Cluster, look
from infra.ec2 import fleet, keys, launch_lock, network, nodes, notices, template
from infra.ec2.fleet import Pool
from infra.ec2.network import SecurityGroup
from infra.ec2.nodes import Node
from infra.ec2.tags import ClusterTags
from infra.errors import CapacityError, ClusterBusy, DeadlineExceeded, InfraError, SetupError, shorten
from infra.events import Emit, Note
from infra.numbers import name_of, number_of
from infra.polling import Pending, poll
from infra.spec import MOST_VALUE_CHARACTERS, ClusterSpec

RUNNING_SECONDS = 300.0  # until EC2 calls what it gave running
CAPACITY_SECONDS = 300.0  # until pool after pool has answered
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 15.0, 600.0  # before what could not be healed is tried again


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What newcomers are made by: as the launch was, with the ``pools`` it could buy from."""

    spec: ClusterSpec
    pools: tuple[Pool, ...]
    gpus: Mapping[str, int]  # by instance type


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Names of workers: ``healed`` now, and ``lacking`` still, with the reason."""

    healed: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    why: str = ""


class Healer:
    """Looks after one cluster: ``step`` is to be called every few seconds, and never raises InfraError.

    Where something cannot be healed it says so once, in the tag of the cluster too, and tries again after a
    while that doubles; at once when somebody else is lost.
    """

    def __init__(
        self, cloud: Cloud, recipe: Recipe, emit: Emit, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cloud, self._recipe, self._emit, self._clock = cloud, recipe, emit, clock
        self._stuck: frozenset[str] = frozenset()  # who could not be healed
        self._wait = FIRST_WAIT_SECONDS
        self._next = -math.inf  # by the clock

    def step(self) -> None:
        """One look, and what it asks for."""
        name, names = self._recipe.spec.name, self._stuck
        try:
            group = network.find_group(self._cloud.region, name)
            need = find_need(self._cloud, name, group) if group is not None and group.is_ready else None
            if not need:
                self._stuck = frozenset()
                return
            names = need.names
            if names == self._stuck and self._clock() < self._next:
                return
            outcome = look_after(self._cloud, self._recipe, self._emit)
        except ClusterBusy:
            return  # somebody changes the cluster: what they leave is seen the next time
        except InfraError as error:
            self._emit(Note(text=str(error)))
            outcome = Outcome(lacking=tuple(sorted(names)), why=str(error))
        self._report(outcome)

    def _report(self, outcome: Outcome) -> None:
        said = [f"healed {', '.join(outcome.healed)}"] if outcome.healed else []
        if outcome.lacking:
            lacking = frozenset(outcome.lacking)
            is_new = lacking != self._stuck
            self._wait = FIRST_WAIT_SECONDS if is_new else min(LONGEST_WAIT_SECONDS, 2 * self._wait)
            self._stuck, self._next = lacking, self._clock() + self._wait
            why = shorten(outcome.why, MOST_VALUE_CHARACTERS) or "it is not known why"
            said.append(f"lacks {', '.join(outcome.lacking)}, tries again in {self._wait:.0f} s: {why}")
        else:
            self._stuck = frozenset()
        if said:
            self._say("; ".join(said))

    def _say(self, text: str) -> None:
        self._emit(Note(text=text))
        when = self._cloud.region.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        with suppress(InfraError):  # the log has it
            group = network.find_group(self._cloud.region, self._recipe.spec.name)
            if group is not None:
                network.mark_healing(
                    self._cloud.region, group, said=shorten(f"{when} {text}", MOST_VALUE_CHARACTERS)
                )


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a look finds: numbers of the ``lost``, the ``silent``, and who is ``going``: EC2 takes it back."""

    cluster: Cluster
    lost: tuple[int, ...]
    silent: tuple[Node, ...]
    going: frozenset[str]  # ids

    @property
    def names(self) -> frozenset[str]:
        return frozenset([*map(name_of, self.lost), *(node.name for node in self.silent)])

    def __bool__(self) -> bool:
        return bool(self.lost or self.silent)


def look_after(cloud: Cloud, recipe: Recipe, emit: Emit) -> Outcome:
    """Heal what there is to heal. Nothing is done to a cluster that is being launched, or has no master.

    Raises ClusterBusy while somebody changes the cluster, and what buying or setting up raises.
    """
    name = recipe.spec.name
    group = network.find_group(cloud.region, name)
    if group is None or not group.is_ready or not find_need(cloud, name, group):
        return Outcome()
    with launch_lock.acquired(cloud.region, name, cloud.home, emit):
        group = network.find_group(cloud.region, name)  # somebody may have taken workers away meanwhile
        need = find_need(cloud, name, group) if group else None
        return _heal(cloud, recipe, group, need, emit) if group and need else Outcome()


def find_need(cloud: Cloud, name: str, group: SecurityGroup) -> Need | None:
    """Who is lost, and who is silent; None where there is no master that runs."""
    there = look(cloud, name)
    if there.master is None or there.master.state != "running":
        return None
    told = notices.of_nodes(cloud.region, there.workers)
    going = frozenset(one for one, notice in told.items() if notice.action == notices.TERMINATE)
    staying = [node for node in there.workers if node.id not in going]
    here = {number_of(node.name) for node in staying}
    health = shrinking.ask_spark(cloud, there)
    silent = [
        node
        for node in staying
        if number_of(node.name) in group.numbers.wanted
        and (not node.is_named or (health is not None and node.private_ip not in health.addresses))
    ]
    return Need(
        cluster=there, lost=tuple(sorted(group.numbers.wanted - here)), silent=tuple(silent), going=going
    )


def _heal(cloud: Cloud, recipe: Recipe, group: SecurityGroup, need: Need, emit: Emit) -> Outcome:
    name, why = recipe.spec.name, ""
    if need.lost:
        emit(Note(text=f"lost: {', '.join(map(name_of, need.lost))}"))
        try:
            _buy(cloud, recipe, group, need, emit)
        except CapacityError as error:
            why = str(error)
    found = look(cloud, name, without=need.going)
    growth.name_workers(found, group.numbers, lambda node, name: nodes.name(cloud.region, node, name))
    known = {node.id for node in need.cluster.workers}
    newcomers = {node.id for node in found.workers if node.id not in known}
    to_join = newcomers | {node.id for node in need.silent}
    if to_join:
        why = _set_up(cloud, recipe, group, to_join, newcomers, need.going, emit) or why
    # the next purchase is another one: with the old tokens EC2 would answer with what it gave before
    network.mark_ready(cloud.region, group, secrets.token_hex(8), group.numbers)
    after = {node.name for node in look(cloud, name, without=need.going).workers}
    wanted = {name_of(number) for number in need.lost} | {node.name for node in need.silent}
    return Outcome(healed=tuple(sorted(wanted & after)), lacking=tuple(sorted(wanted - after)), why=why)


def _buy(cloud: Cloud, recipe: Recipe, group: SecurityGroup, need: Need, emit: Emit) -> None:
    """Buy as many of the lost as there are to be had. Raises CapacityError if that is fewer."""
    region, spec = cloud.region, recipe.spec
    ours = template.find(region, spec.name)
    if ours is None:
        raise SetupError(f"The launch template of {spec.name} is gone; {cloud.command('launch', spec.name)}.")
    cluster_tags = ClusterTags.new(
        spec.name, group.generation, max_hours=0, extra=spec.tags, now=region.now()
    )
    cluster_tags = growth.of_group(cluster_tags, group)

    def ask(pools: tuple[Pool, ...]) -> None:
        there = look(cloud, spec.name, without=need.going)
        here = {number_of(node.name) for node in there.workers}
        missing = sum(number not in here for number in need.lost)
        request = fleet.PurchaseRequest(
            count=missing,
            partial=True,
            pools=pools,
            template=ours,
            cluster_tags=cluster_tags,
            purchase=spec.purchase,
            existing=(*(node.id for node in there.workers), *there.ended),
        )
        fleet.buy_workers(region, request, emit, deadline_seconds=CAPACITY_SECONDS)

    near, others = growth.by_nearness(recipe.pools, need.cluster)
    try:
        ask(near or others)
    except CapacityError:
        if not near or not others:
            raise
        ask(others)


def _set_up(
    cloud: Cloud,
    recipe: Recipe,
    group: SecurityGroup,
    ids: Collection[str],
    newcomers: Collection[str],
    going: Collection[str],
    emit: Emit,
) -> str:
    """Let the nodes of these ``ids`` join, ``newcomers`` among them; those that fail are ended.

    Why they failed, empty if none did.
    """
    left, why = set(ids), ""
    while left:
        there = _wait_until_running(cloud, recipe.spec.name, left, going)
        members = [node for node in there.workers if node.id in left]
        if there.master is None or not members:
            break
        addresses = [node.private_ip for node in members if node.id in newcomers]
        keys.forget_hosts(
            cloud.home, cloud.region.name, recipe.spec.name, addresses
        )  # of who had them before
        setup = provision.Setup(
            spec=replace(recipe.spec, workers=len(members)),
            connect=cloud.connect,
            gpus=recipe.gpus,
            emit=emit,
            pace=cloud.pace,
            idle_minutes=group.lifetime.idle_minutes,
        )
        try:
            provision.set_up(setup, [there.master, *members])
        except SetupError as error:
            why = str(error)
            failed = [node for node in members if node.name in error.nodes]
            if not failed:
                raise
            replacement.discard(cloud, recipe.spec.name, failed, error, emit)
            left -= {node.id for node in failed}
        else:
            break
    return why


def _wait_until_running(cloud: Cloud, name: str, ids: set[str], going: Collection[str]) -> Cluster:
    """The cluster, once all of ``ids`` that are still alive run. Raises DeadlineExceeded."""

    def check() -> Cluster | Pending:
        found = look(cloud, name, without=going)
        ids.intersection_update(node.id for node in found.workers)
        late = [node for node in found.workers if node.id in ids and node.state != "running"]
        overdue = DeadlineExceeded(
            f"{', '.join(node.name for node in late)} of {name} do not run after {RUNNING_SECONDS:g} s.",
            nodes=[node.name for node in late],
        )
        return Pending(lambda: overdue) if late else found

    return poll(check, deadline_seconds=RUNNING_SECONDS, every=cloud.poll_seconds, sleep=cloud.region.sleep)
