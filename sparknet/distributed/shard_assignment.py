"""Who trains on which shard when there are not as many workers as shards, and what to change next.

Every shard has a task of the Spark job. A task holds a slot for as long as it trains, so with fewer slots
than shards (a small cluster, a machine gone for good) some tasks wait, and their shards are unassigned.
Nothing but a task that Spark starts can read a partition, and Spark starts none while no slot is free.
Therefore:

    1. a shard has had no worker for ``wait_seconds``, and its task waits for a slot: the worker with the
       fewest records *yields* its slot: it puts its shards on the spill volume of its executor
       (``data/handoff.py``) and ends its task.
    2. Spark gives the slot to a waiting task, which drains its own partition as any other.
    3. the newcomer, or whoever else is on that executor, is *assigned* the shards handed over and maps them.
    4. the shards whose tasks have ended are *submitted* again, as a further job. It waits until there is a
       slot: a machine that returned, or was added. The worker that then starts drains its partition by its
       lineage, and trains on it again.

So every shard has a worker, or will have one soon, and every shard that is not with its own worker has a task
waiting to take it back. No data crosses the network for it, which one slot is enough for. Alternatives that
were rejected: sending shards from worker to worker (needs two slots, and a copy of the data on the wire); a
copy of every shard on a neighbour (twice the space, always, for what is rare); one job for all with the
partitions coalesced anew (every worker drains everything again whenever one comes or goes).

This module knows neither sockets nor Spark: events go in, a ``Plan`` comes out.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

# How long a free slot is waited for where it is known that a worker does not come back.
_SLOT_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``yields``: workers that are to yield their slots. ``assignments``: by worker, all shards it is to
    train on from now on. ``submit``: shards whose tasks Spark is to be given again. ``hanging``: shards that
    have had no worker for too long, though their tasks do not wait for a slot.
    """

    yields: tuple[int, ...] = ()
    assignments: Mapping[int, frozenset[int]] = field(default_factory=dict)
    submit: tuple[int, ...] = ()
    hanging: tuple[int, ...] = ()


class ShardAssignment:
    """Which of ``shards`` shards are whose. A worker is known by the number of its own shard.

    Times are seconds of any clock that only goes forward.
    """

    def __init__(self, shards: int, wait_seconds: float) -> None:
        self.shards, self.wait_seconds = shards, wait_seconds
        self._holder: dict[int, int] = {}
        self._held: dict[int, set[int]] = {}  # the same, by worker
        self._confirmed: dict[int, frozenset[int]] = {}  # by worker, as it reported last
        self._records: dict[int, int] = {}
        self._places: dict[int, str] = {}
        self._handed_over: dict[int, str] = {}
        self._since: dict[int, float] = {}
        self._arriving: set[int] = set()
        self._successors: list[float] = []  # until when the successor of each that yielded is waited for
        self._unscheduled: set[int] = set()
        self._staying: set[int] = set()

    # -- events ---------------------------------------------------------------------------------------------

    def arriving(self, worker: int) -> None:
        """Its task has started and is draining its partition."""
        if worker not in self._arriving:
            self._arriving.add(worker)
            del self._successors[:1]

    def gone(self, worker: int, now: float) -> None:
        """It ended before it had joined."""
        self._arriving.discard(worker)
        self._since[worker] = now

    def joined(self, worker: int, place: str, records: Mapping[int, int], now: float) -> None:
        """It has these shards, ``records`` in each; its own shard is its own again, whoever had it."""
        self._arriving.discard(worker)
        self._unscheduled.discard(worker)
        self._handed_over.pop(worker, None)
        self._places[worker] = place
        self._records[worker] = records.get(worker, 0)
        self._release(worker)
        self.confirmed(worker, records, now)

    def confirmed(self, worker: int, records: Mapping[int, int], now: float) -> None:
        """It reports what it has: a shard that was assigned and is not there is lost."""
        for shard in [shard for shard in self.of(worker) if shard not in records]:
            self._handed_over.pop(shard, None)
            self._unassign(shard, now)
        for shard, count in records.items():
            if count and shard not in self._holder:
                self._hold(shard, worker)
            if count and self._holder[shard] == worker:
                self._records[shard] = count
                self._handed_over.pop(shard, None)
        self._confirmed[worker] = frozenset(shard for shard, count in records.items() if count)

    def left(self, worker: int, now: float) -> None:
        """It is lost; Spark starts its task again as soon as there is a slot."""
        for shard in self.of(worker):
            self._unassign(shard, now)
        self._confirmed.pop(worker, None)
        self._places.pop(worker, None)
        self._staying.discard(worker)

    def yielded(self, worker: int, records: Mapping[int, int], place: str, now: float) -> None:
        """It has handed its shards over and its task has ended for good."""
        self.left(worker, now)
        self._handed_over.update(dict.fromkeys(records, place))
        self._unscheduled.add(worker)
        self._successors.append(now + self.wait_seconds)

    def withdrawn(self, worker: int, now: float, *, submitted: bool) -> None:
        """It has left because its machine goes, and its task has ended for good; the task has been
        ``submitted`` again, or has to be. Nobody waits for it to come back.
        """
        shards = {worker, *self.of(worker)}
        self.left(worker, now)
        # unless a free slot takes the task at once, another worker has to yield
        self._since.update(dict.fromkeys(shards, now - max(0.0, self.wait_seconds - _SLOT_SECONDS)))
        if not submitted:
            self._unscheduled.add(worker)

    def stays(self, worker: int) -> None:
        """It could not yield, and is not asked again."""
        self._staying.add(worker)

    def ended(self, shard: int, now: float) -> None:
        """Its task has been ended, for Spark to start it again: it is waited for anew."""
        self._since[shard] = now

    def submitted(self, shards: tuple[int, ...]) -> None:
        self._unscheduled.difference_update(shards)

    # -- state ----------------------------------------------------------------------------------------------

    def of(self, worker: int) -> list[int]:
        """The shards that are the worker's to train on."""
        return sorted(self._held.get(worker, ()))

    @property
    def unassigned(self) -> list[int]:
        """The shards that nobody trains on; those known to be empty need nobody."""
        return [n for n in range(self.shards) if n not in self._holder and self._records.get(n, 1)]

    @property
    def settled(self) -> bool:
        """Whether every shard is with a worker that knows it, and has a task of its own."""
        return not (self.unassigned or self._to_schedule or self._uninformed)

    @property
    def moving(self) -> bool:
        """Whether somebody is on the way."""
        return bool(self._arriving or self._successors)

    # -- plan ----------------------------------------------------------------------------------------------

    def plan(
        self, now: float, *, stay: int, full: bool = False, waiting: Container[int] | None = None
    ) -> Plan:
        """What to do now; ``stay`` workers at least must not yield.

        With ``full`` it is known that no slot is free, and nothing need be waited for. ``waiting`` are the
        shards whose tasks wait for a slot, all of them unless that is known: only for these is it of any use
        to yield one.
        """
        self._successors = [until for until in self._successors if until > now]
        for shard in self.unassigned:
            self._since.setdefault(shard, now)
        self._forget_lost_handoffs(now)
        missing = [
            shard
            for shard in self.unassigned
            if shard not in self._handed_over and shard not in self._arriving
        ]
        due = [shard for shard in missing if full or self._is_due(shard, now)]
        queued = [shard for shard in due if waiting is None or shard in waiting]
        hanging = tuple(s for s in due if s not in queued and s not in self._unscheduled)
        yields = self._to_yield(queued, stay)
        if yields:
            return Plan(yields=yields, hanging=hanging)
        self._distribute(now, alone=not missing and not self.moving)
        scheduled = [shard for shard in missing if shard not in self._unscheduled]
        return Plan(
            assignments={worker: frozenset(self.of(worker)) for worker in self._uninformed},
            submit=() if scheduled else tuple(sorted(self._to_schedule)),
            hanging=hanging,
        )

    def _to_yield(self, due: list[int], stay: int) -> tuple[int, ...]:
        """Those with the fewest records, as many as there are shards that nobody is on the way for."""
        due = [shard for shard in due if shard not in self._unscheduled]  # nothing waits for a slot yet
        able = self._confirmed.keys() - self._staying
        count = min(len(due) - len(self._successors), len(self._confirmed) - stay, len(able))
        chosen: list[int] = []
        while len(chosen) < count:
            left = able.difference(chosen)
            chosen.append(
                min(left, key=lambda worker: (self._load(worker), self._crowd(worker, chosen), -worker))
            )
        return tuple(chosen)

    def _crowd(self, worker: int, chosen: list[int]) -> int:
        """The shards that those of the worker's place will have to take if it yields."""
        place = self._places[worker]
        return sum(where == place for where in self._handed_over.values()) + sum(
            len(self.of(other)) for other in chosen if self._places[other] == place
        )

    def _distribute(self, now: float, *, alone: bool) -> None:
        """Assign shards that were handed over to workers of the same place, evenly if others are to come."""
        seats = len(self._confirmed) + len(self._arriving) + len(self._successors)
        most = -(-self.shards // max(1, seats))
        for shard in [shard for shard in self.unassigned if shard in self._handed_over]:
            there = [worker for worker, place in self._places.items() if place == self._handed_over[shard]]
            free = [worker for worker in there if len(self.of(worker)) < most]
            able = there if alone or self._is_due(shard, now) else free
            if able:
                self._hold(shard, min(able, key=lambda worker: (self._load(worker), worker)))

    def _forget_lost_handoffs(self, now: float) -> None:
        places = set(self._places.values())
        for shard in [
            shard for shard in self.unassigned if self._handed_over.get(shard, "") not in {"", *places}
        ]:
            if self._is_due(shard, now) and not self.moving:
                del self._handed_over[shard]
                self._since[shard] = now

    def _unassign(self, shard: int, now: float) -> None:
        self._release(shard)
        self._since[shard] = now

    def _hold(self, shard: int, worker: int) -> None:
        self._holder[shard] = worker
        self._held.setdefault(worker, set()).add(shard)

    def _release(self, shard: int) -> None:
        holder = self._holder.pop(shard, None)
        if holder is not None:
            self._held[holder].discard(shard)

    def _is_due(self, shard: int, now: float) -> bool:
        return now - self._since[shard] >= self.wait_seconds

    def _load(self, worker: int) -> int:
        return sum(self._records.get(shard, 0) for shard in self.of(worker))

    @property
    def _to_schedule(self) -> set[int]:
        return {shard for shard in self._unscheduled if self._records.get(shard, 1)}

    @property
    def _uninformed(self) -> list[int]:
        """Workers that have other shards than they should."""
        return sorted(
            worker for worker, held in self._confirmed.items() if held != self._held.get(worker, set())
        )
