"""What a seed draws: how training is set up, and what happens to whom at which protocol event.

A fault is bound to a protocol event of one worker ("the second worker that shard 1 has, before its third
REPORT") or to a round of the driver, never to the clock: a seed replays.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

MODES = ("star", "ring", "elastic")
WIRES = ("float32", "bfloat16", "int8")

_DRAINED = ("drain", "received CHALLENGE", "received WELCOME", "sends READY", "sent READY")
_TRAINED = ("received TRAIN", "step", "sends REPORT", "sent REPORT")
_TESTED = ("received TEST", "score", "sends SCORES", "sent SCORES")
_SAVED = ("received SAVE", "sends STATE", "sent STATE", "received RESTORE")
_MOVED = (
    "received YIELD",
    "sends YIELDED",
    "sent YIELDED",
    "received ASSIGN",
    "sends ASSIGNED",
    "sent ASSIGNED",
)
_REDUCED = ("received REDUCE", "sends REDUCED", "sent REDUCED", "received COMMIT")
_FETCHED = ("received FETCH", "sends WEIGHTS", "sent WEIGHTS", "received OUTER", "received MEMORY")

GRADIENTS = 0.25
"""The share of runs of rounds in which gradients are averaged."""

NOTICES = 0.3
"""The share of machines that are taken back with notice."""

LIVES = 3
"""Workers that a shard has one after the other, to which something may happen."""


@dataclass(frozen=True, kw_only=True)
class Strike:
    """At the ``nth`` time that the ``life``-th worker of a shard comes to an event, from 1, what happens.

    ``notice`` its machine says that it is taken back, and is, and another one comes in its place;
    ``kill`` SIGKILL; ``torn`` the same in the middle of a frame; ``stop`` SIGSTOP; ``cut`` neither end hears
    of the other; ``hang up`` its connection ends; ``slow`` it pauses; ``error`` it raises; ``host`` the slot
    is gone with it. It heals after ``rounds`` more rounds of the driver, 0 for never.
    """

    shard: int
    life: int
    event: str
    nth: int
    what: str
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Blow:
    """What happens before round ``round``: ``kill all`` workers, ``kill one``, ``stop one``, ``add host``,
    ``lose host`` for good, or ``restart`` the driver, which goes on from its last checkpoint."""

    round: int
    what: str
    whom: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run. ``slots`` tasks run at once at first; the caller fetches the weights after the rounds
    ``fetches``, asks for states after ``saves``, and waits for all that run to join before ``dwells``. It
    ends ``at once`` after the last of the ``rounds``, or when all have come back (``at rest``)."""

    seed: int
    mode: str
    wire: str
    workers: int
    slots: int
    rounds: int
    tau: int
    momentum: str
    outer: str
    sampling: str
    quorum: float
    copy_every: int
    overlap: bool
    gradients: bool
    test_every: int
    fetches: tuple[int, ...]
    saves: tuple[int, ...]
    dwells: tuple[int, ...]
    ends: str
    strikes: tuple[Strike, ...]
    blows: tuple[Blow, ...]

    @classmethod
    def drawn(cls, seed: int, mode: str | None = None, *, gradients: bool = False) -> Self:
        """That of a seed; of a ``mode`` or with ``gradients`` only, where that is said."""
        rng = random.Random(seed)
        mode = mode or rng.choice(MODES)
        workers, rounds = rng.choice((1, 2, 2, 3, 4)), rng.randint(10, 28)
        slots = workers if rng.random() < 0.75 else rng.randint(1, workers + 1)
        wire = rng.choice(WIRES)
        exact = wire == "float32" and mode != "elastic"
        plan = cls(
            seed=seed,
            mode=mode,
            wire=wire,
            workers=workers,
            slots=slots,
            rounds=rounds,
            tau=rng.randint(1, 3),
            momentum=rng.choice(("keep", "keep", "average", "reset")) if mode != "elastic" else "keep",
            outer=rng.choice(("average", "average", "slowmo")) if exact else "average",
            sampling=rng.choice(("window", "epoch")),
            quorum=rng.choice((1.0, 1.0, 1.0, 0.6)),
            copy_every=rng.randint(1, 6),
            overlap=False,
            gradients=False,
            test_every=rng.choice((0, 0, 1, 2, 5)),
            fetches=_some(rng, rounds, rng.choice((0.0, 0.1, 0.5))),
            saves=_some(rng, rounds, rng.choice((0.0, 0.1, 0.3))),
            dwells=_some(rng, rounds, rng.choice((0.1, 0.3, 0.6))),
            ends=rng.choice(("at once", "at rest", "at rest")) if mode != "elastic" else "at rest",
            strikes=_announced(seed, tuple(_strike(rng, mode, workers) for _ in range(rng.randint(1, 5)))),
            blows=tuple(
                _blow(rng, rounds, workers) for _ in range(rng.choices((0, 1, 2), weights=(3, 2, 1))[0])
            ),
        )
        can_overlap = mode != "elastic" and plan.momentum != "average"
        plan = replace(plan, overlap=can_overlap and rng.random() < 0.5)
        return plan if mode == "elastic" else _in_step(plan, 1.0 if gradients else GRADIENTS)

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """From what ``told`` says."""
        values = {
            "overlap": False,
            "gradients": False,
            **{field.name: said[field.name] for field in fields(cls) if field.name in said},
        }
        lists = {name: tuple(values[name]) for name in ("fetches", "saves", "dwells")}
        strikes = tuple(Strike(**strike) for strike in values["strikes"])
        blows = tuple(Blow(**blow) for blow in values["blows"])
        return cls(**{**values, **lists, "strikes": strikes, "blows": blows})

    def told(self) -> dict[str, Any]:
        """As JSON can say it."""
        return asdict(self)


def _in_step(plan: Plan, share: float) -> Plan:
    """A share of them averages gradients. Drawn apart: the rest of a plan stays what it was."""
    if random.Random(f"gradients {plan.seed}").random() >= share:
        return plan
    return replace(plan, gradients=True, tau=1, momentum="keep", outer="average", overlap=False)


def _some(rng: random.Random, rounds: int, share: float) -> tuple[int, ...]:
    return tuple(number for number in range(1, rounds + 1) if rng.random() < share)


def _strike(rng: random.Random, mode: str, workers: int) -> Strike:
    groups = [_TRAINED, _TRAINED, _TESTED, _SAVED, _MOVED, _DRAINED]
    groups += [_REDUCED, _REDUCED, _FETCHED] if mode == "ring" else [_TRAINED]
    event = rng.choice(rng.choice(groups))
    kinds = ["kill", "kill", "kill", "stop", "stop", "cut", "hang up", "slow", "host", "host"]
    if event.startswith("sends"):
        kinds.append("torn")
    if event in ("step", "score"):
        kinds.append("error")
    what = rng.choice(kinds)
    ever = what in ("stop", "host") and rng.random() < 0.5
    return Strike(
        shard=rng.randrange(workers),
        life=rng.choices(range(LIVES), weights=(6, 2, 1))[0],
        event=event,
        nth=1 if event in _DRAINED or event in _MOVED else rng.choice((1, 1, 2, 3, 5, 8)),
        what=what,
        rounds=0 if ever else rng.randint(1, 8),
    )


def _announced(seed: int, strikes: tuple[Strike, ...]) -> tuple[Strike, ...]:
    """Some of those that end a worker come with notice. Drawn apart: the rest of a plan stays what it was."""
    rng = random.Random(f"notice {seed}")
    return tuple(
        replace(one, what="notice", rounds=one.rounds or 4)
        if one.what in ("kill", "host", "stop") and rng.random() < NOTICES
        else one
        for one in strikes
    )


def _blow(rng: random.Random, rounds: int, workers: int) -> Blow:
    what = rng.choice(("kill all", "kill one", "stop one", "add host", "lose host", "lose host", "restart"))
    return Blow(round=rng.randint(2, rounds), what=what, whom=rng.randrange(workers))
