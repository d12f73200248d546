"""Images a second, goodput and dollars of a run that has not been made, by number of workers.

Rounds are simulated without losses, and once more with some machines reclaimed. What a reclaim costs the
others is the difference; how often that happens, and how long a worker is away, is in the ``Machines``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

from sparknet import clock
from sparknet.algorithms import Asked, algorithm
from sparknet.auto_tau import AutoTau
from sparknet.errors import UsageError
from sparknet.rounds import Round
from sparknet.simulation.machines import Machines
from sparknet.simulation.team import SimulatedTeam
from sparknet.training import Settings

SPOT_CHECKS = 3
"""Reclaims that are simulated, to know what one costs."""

# Worker rounds to simulate, and rounds at least and at most; those before the first that counts.
_WORK, _LEAST, _MOST, _WARM = 4000, 6, 40, 3
# A replacement comes after so many rounds where the cost of a reclaim is measured: time away is added apart.
_AWAY_ROUNDS = 2
_SECONDS_AN_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class Way:
    """How to train: what ``algorithm`` does, how many steps a round has, and how weights travel."""

    algorithm: str = "average"
    tau: int | str = 10
    exchange: str = "star"
    wire: str = "float32"
    overlap: bool = False
    time_cap_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.exchange not in ("star", "ring"):
            raise UsageError(f"the exchange is {self.exchange!r}: star or ring")
        if self.tau != "auto" and not isinstance(self.tau, int):
            raise UsageError(f"tau is {self.tau!r}: a number of steps, or auto")
        asked = Asked(tau=self.tau, overlap=self.overlap, exchange=self.exchange)
        algorithm(self.algorithm).check(asked)

    def __str__(self) -> str:
        overlap = ", overlap" if self.overlap else ""
        return f"{self.algorithm}, {self.exchange}, {self.wire}, tau {self.tau}{overlap}"


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of ``workers`` workers that train this ``way``.

    ``goodput`` is the images that count, of those that all machines would make if none of them ever waited
    or were away. A round of ``tau`` steps takes ``round_seconds``, of which everybody waits for
    ``exchange_seconds``. ``reclaim_seconds`` is what a reclaimed machine costs all the others.
    """

    workers: int
    way: Way
    tau: int
    images_per_second: float
    goodput: float
    round_seconds: float
    exchange_seconds: float
    reclaim_seconds: float = 0.0

    def dollars_an_epoch(self, images: int, worker: float, driver: float) -> float:
        """For so many ``images``, at these prices of a machine and hour."""
        hours = images / self.images_per_second / _SECONDS_AN_HOUR
        return hours * (self.workers * worker + driver)


def forecast(machines: Machines, workers: int, way: Way, seed: int = 0) -> Forecast:
    """What to expect of ``workers`` workers."""
    calm = _Run(machines, workers, way, seed)
    calm.train()
    rate, cost = calm.images_per_second, 0.0
    if machines.reclaims and workers > 1:
        struck = _Run(machines, workers, way, seed)
        struck.train(reclaim_every=max(2, calm.rounds // (SPOT_CHECKS + 1)))
        cost = max(0.0, struck.lost_seconds(rate)) / max(1, struck.reclaims)
    each_second = machines.reclaims / _SECONDS_AN_HOUR
    present = 1 / (1 + each_second * machines.replacement_seconds)
    undisturbed = 1 / (1 + workers * each_second * cost)
    rate *= present * undisturbed
    return Forecast(
        workers=workers,
        way=way,
        tau=calm.last.tau,
        images_per_second=rate,
        goodput=rate * machines.step_seconds / (workers * machines.batch_size),
        round_seconds=calm.seconds / calm.counted,
        exchange_seconds=calm.exchange_seconds,
        reclaim_seconds=cost,
    )


def forecasts(
    machines: Machines, workers: Iterable[int], ways: Sequence[Way], seed: int = 0
) -> Iterator[Forecast]:
    """For all ways and numbers of workers, as they come."""
    return (forecast(machines, count, way, seed) for way in ways for count in workers)


def limits(found: Sequence[Forecast]) -> tuple[int | None, int]:
    """Of one way: from how many workers on half of the machines' time is lost, None if that is nowhere, and
    the number of workers that is fastest."""
    lost = (each.workers for each in found if each.goodput < 0.5)
    return next(lost, None), max(found, key=lambda each: each.images_per_second).workers


class _Run:
    """Some rounds, of which the first ones do not count."""

    def __init__(self, machines: Machines, workers: int, way: Way, seed: int) -> None:
        chosen = algorithm(way.algorithm).of(workers, way.tau)
        self._machines, self._workers, self._way, self._algorithm = machines, workers, way, chosen
        self._measured = AutoTau(overlap=way.overlap) if way.tau == "auto" else None
        self.rounds = min(_MOST, max(_LEAST, _WORK // workers)) + (6 if self._measured else 0)
        self._team = SimulatedTeam(machines, workers, wire=way.wire, ring=way.exchange == "ring", seed=seed)
        self._done: list[tuple[Round, float]] = []
        self.reclaims = 0

    def train(self, reclaim_every: int = 0) -> None:
        """Simulate the rounds; after every ``reclaim_every``-th a machine is reclaimed."""
        team, chosen, way = self._team, self._algorithm, self._way
        settings: Settings = chosen.settings(
            rounds=self.rounds,
            tau=self._measured or way.tau,
            overlap=way.overlap,
            time_cap_seconds=way.time_cap_seconds,
        )
        with clock.of(team.events.now), _silent():
            try:
                for done in chosen.train(team, settings, chosen.outer()):
                    self._done.append((done, team.events.time))
                    counts = done.number > _WARM and done.number + _AWAY_ROUNDS < self.rounds
                    if reclaim_every and counts and done.number % reclaim_every == 0:
                        self._reclaim(done)
            finally:
                team.close()

    def _reclaim(self, done: Round) -> None:
        # in the middle of the next round, as it is in the mean
        number, seconds = self.reclaims % self._workers, done.seconds
        away = _AWAY_ROUNDS * seconds
        self._team.events.after(seconds / 2, lambda: self._team.reclaim(number, away))
        self.reclaims += 1

    @property
    def last(self) -> Round:
        return self._done[-1][0]

    @property
    def _warm(self) -> int:
        """Rounds that do not count: with the tau that was chosen last no others do."""
        others = [done.number for done, _ in self._done if done.tau != self.last.tau]
        return min(max([_WARM, *others]), len(self._done) - 2)

    @property
    def counted(self) -> int:
        return len(self._done) - self._warm

    @property
    def seconds(self) -> float:
        return self._done[-1][1] - self._done[self._warm - 1][1]

    @property
    def images_per_second(self) -> float:
        return sum(done.images for done, _ in self._done[self._warm :]) / self.seconds

    @property
    def exchange_seconds(self) -> float:
        rounds = [done.exchange_seconds for done, _ in self._done[self._warm :]]
        return sum(rounds) / len(rounds)

    def lost_seconds(self, rate: float) -> float:
        """Compared with images at this ``rate``, those of the machines that were away not counted."""
        made = sum(done.images for done, _ in self._done[self._warm :])
        away = self.reclaims * _AWAY_ROUNDS * self.seconds / self.counted
        return self.seconds - away / self._workers - made / rate


@contextmanager
def _silent() -> Iterator[None]:
    """What befalls simulated workers is no news."""
    log = logging.getLogger("sparknet.distributed")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def ways(
    algorithms: Sequence[str],
    taus: Sequence[int | str],
    exchanges: Sequence[str],
    wires: Sequence[str],
    overlaps: Sequence[bool],
) -> list[Way]:
    """All that go together. Raises UsageError, with the reason, if none does."""
    found, reasons = list[Way](), list[str]()
    for name, exchange, wire, overlap in product(algorithms, exchanges, wires, overlaps):
        for tau in _taus_of(name, taus):
            try:
                way = Way(algorithm=name, tau=tau, exchange=exchange, wire=wire, overlap=overlap)
            except UsageError as error:
                reasons.append(str(error))
            else:
                found.append(way)
    if not found:
        raise UsageError(reasons[0])
    return list(dict.fromkeys(found))


def _taus_of(name: str, taus: Sequence[int | str]) -> Sequence[int | str]:
    """Those asked for, but an algorithm that averages after every step has its own."""
    return [1] if name == "sync" else taus
