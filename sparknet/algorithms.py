"""The algorithms a run can choose by name: what becomes of the workers' weights at the end of a round.

    chosen = algorithm("auto").of(workers=8, tau=10)
    for done in chosen.train(workers, chosen.settings(rounds=100, tau=10), chosen.outer()): ...

To add one, add an entry to ``ALGORITHMS``: ``Trainer``, the apps and the table of the docs have it from then
on. Its options have the defaults for nets of convolutions that are trained by SGD with momentum.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

from sparknet import easgd, training
from sparknet.easgd import Elastic, LockFree
from sparknet.errors import UsageError
from sparknet.outer import Average, DiLoCo, SlowMo
from sparknet.rate_rule import RateRule
from sparknet.training import Momentum, Round, Settings


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What else a run was asked for, as far as algorithms differ in it; None for what was not said.

    ``copies`` says that those of a ring were asked for.
    """

    tau: object = None
    overlap: bool = False
    momentum: Momentum | None = None
    quorum: float = 1.0
    exchange: str = "auto"
    copies: bool = False
    workers: int | None = None


_CONDITIONS: Mapping[str, Callable[[Asked], bool]] = {
    "tau": lambda asked: asked.tau not in (None, 1),
    "overlap": lambda asked: asked.overlap,
    "momentum": lambda asked: asked.momentum not in (None, "keep"),
    "quorum": lambda asked: asked.quorum < 1,
    "ring": lambda asked: asked.exchange == "ring",
    "copies": lambda asked: asked.copies,
    "workers": lambda asked: asked.workers not in (None, 1),
    "measured tau": lambda asked: asked.tau == "auto",
}


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """An algorithm and what is to be known of it.

    ``summary``, ``paper`` and ``cost`` (of a round, beyond the steps) are for people.
    ``make`` makes its outer optimiser, or its centre, of ``options``: their names and defaults.
    ``momentum`` is what becomes of the workers' own by default, ``tau`` the steps of a round, None for the
    app's. ``nesterov`` asks for workers that step by Nesterov's momentum.
    ``rate`` is how the learning rate changes through a run, for solvers and optimisers of SGD.
    With ``gradients`` these are averaged, in every step, and not weights.
    ``train`` is its loop, with the arguments of ``training.train``.
    ``refuses`` has a sentence for each thing (of ``Asked``) that cannot be with it.
    """

    summary: str
    paper: str = ""
    cost: str = ""
    make: Callable[..., Any] = Average
    options: Mapping[str, float | None] = field(default_factory=dict)
    momentum: Momentum = "keep"
    tau: int | None = None
    nesterov: bool = False
    rate: RateRule | None = None
    train: Callable[..., Iterator[Round]] = training.train
    refuses: Mapping[str, str] = field(default_factory=dict)
    recommended: Callable[[int, object], Algorithm] | None = None
    gradients: bool = False

    @property
    def defaults(self) -> str:
        """Its options and what holds for it unless it is said, as on a command line."""
        given: dict[str, object] = {
            key.replace("_", "-"): value_text(each) for key, each in self.options.items()
        }
        if self.tau:
            given["tau"] = self.tau
        if self.momentum != "keep":
            given["momentum"] = self.momentum
        return ", ".join(f"--{name} {value}" for name, value in given.items())

    def settings(self, *, momentum: Momentum | None = None, **values: Any) -> Settings:
        """As ``Settings``; ``momentum`` is the algorithm's unless it is given."""
        return Settings(
            momentum=momentum or self.momentum, rate=self.rate, gradients=self.gradients, **values
        )

    def outer(self) -> Any:
        """Its outer optimiser, or its centre."""
        return self.make(**self.options)

    def with_options(self, given: Mapping[str, float | None]) -> Algorithm:
        """The same with these options, those that are None left as they are.

        Raises UsageError for one that it does not have, or a value that cannot be.
        """
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        unknown = [name for name in chosen if name not in self.options]
        if unknown:
            known = ", ".join(self.options) or "none"
            raise UsageError(
                f"{unknown[0]} is no option of this algorithm ({self.summary}), which has {known}"
            )
        for name, value in chosen.items():
            if type(value) is bool or not isinstance(value, Real) or not math.isfinite(value):
                raise UsageError(f"{name} is {value!r}: a finite number is needed")
        made = replace(self, options={**self.options, **chosen})
        made.outer()
        return made

    def check(self, asked: Asked) -> None:
        """Raise UsageError if something that is asked for cannot be with it."""
        for name, sentence in self.refuses.items():
            if _CONDITIONS[name](asked):
                raise UsageError(sentence)

    def of(self, workers: int, tau: object = None) -> Algorithm:
        """What it is for so many workers, and so many steps in a round, or a schedule of them."""
        return self.recommended(workers, tau) if self.recommended else self


def _slowmo(outer_lr: float, outer_momentum: float) -> SlowMo:
    return SlowMo(step_size=outer_lr, momentum=outer_momentum)


def _diloco(outer_lr: float, outer_momentum: float) -> DiLoCo:
    return DiLoCo(lr=outer_lr, momentum=outer_momentum)


def _elastic(moving_rate: float | None) -> Elastic:
    return Elastic(moving_rate=moving_rate)


def _lock_free(moving_rate: float | None) -> LockFree:
    return LockFree(moving_rate=moving_rate)


_AT_OWN_PACE = {
    "overlap": "--overlap is for rounds that all workers share: with elastic averaging nobody waits for the "
    "others already, and a worker needs the answer to its exchange to go on",
    "momentum": "with elastic averaging each worker keeps its own momentum: --momentum keep",
    "quorum": "--quorum is for rounds that all workers share: with elastic averaging nobody waits for others",
    "measured tau": "--tau auto goes by how long all workers wait for an average, and with elastic averaging "
    "nobody does: give a number of steps",
    "ring": "elastic averaging exchanges with a centre in the driver: --exchange star or auto",
    "copies": "--copy-every is for a ring: elastic averaging exchanges with a centre in the driver",
}
_CENTRE = "a vector up and one down for each worker, whenever it is ready; the driver keeps K + 1 vectors"

AVERAGE = Algorithm(
    summary="the average, as in SparkNet",
    paper="arXiv 1511.06051",
    cost="one average; no memory",
)
SLOWMO = Algorithm(
    summary="slow momentum on the averages, which takes the place of the workers' own",
    paper="arXiv 1910.00643",
    cost="one average; a vector of momentum",
    make=_slowmo,
    options={"outer_lr": 1.0, "outer_momentum": 0.5},
    momentum="reset",
)


# a mean that moves the same way in every round goes lr / (1 - momentum) = 1 times as far: as it is
DILOCO = Algorithm(
    summary="Nesterov momentum on the averages, the workers keeping theirs",
    paper="arXiv 2311.08105",
    cost="one average; a vector of momentum",
    make=_diloco,
    options={"outer_lr": 0.7, "outer_momentum": 0.3},
)

# The highest rates that were measured: each worker's own steps must stay stable, however many average.
_HIGHEST_RATE, _HIGHEST_IN_LONG_ROUNDS = 4, 2
# Steps of a round in which workers go so far apart that their mean goes much less far than each of them.
_LONG_ROUND = 25


def _recommended(workers: int, tau: object) -> Algorithm:
    """By ``docs/experiments/recommended.toml``: longer steps at first, the rate that was set in the end."""
    if workers == 1:
        return AVERAGE
    if not isinstance(tau, int) or tau < _LONG_ROUND:
        return replace(AVERAGE, rate=_raised(min(workers, _HIGHEST_RATE)))
    diloco = DILOCO.with_options({"outer_lr": 0.9, "outer_momentum": 0.8})
    return replace(diloco, rate=_raised(min(workers, _HIGHEST_IN_LONG_ROUNDS)))


def _raised(scale: int) -> RateRule:
    return RateRule(scale=scale, warm_up=0.02, hold=0.5)


ALGORITHMS: Mapping[str, Algorithm] = {
    "average": AVERAGE,
    "slowmo": SLOWMO,
    "diloco": DILOCO,
    "easgd": Algorithm(
        summary="elastic averaging at each worker's own pace; no exchange is lost",
        paper="arXiv 1412.6651",
        cost=_CENTRE,
        make=_elastic,
        options={"moving_rate": None},
        train=easgd.train,
        refuses=_AT_OWN_PACE,
    ),
    "easgd-lockfree": Algorithm(
        summary="elastic averaging as DeepSpark's server does it: exchanges at the same time may be lost",
        paper="arXiv 1602.08191",
        cost=_CENTRE,
        make=_lock_free,
        options={"moving_rate": easgd.DEEPSPARK_RATE},
        tau=50,
        train=easgd.train,
        refuses=_AT_OWN_PACE,
    ),
    "eamsgd": Algorithm(
        summary="elastic averaging of workers that step by Nesterov's momentum",
        paper="arXiv 1412.6651",
        cost=_CENTRE,
        make=_elastic,
        options={"moving_rate": None},
        nesterov=True,
        train=easgd.train,
        refuses=_AT_OWN_PACE,
    ),
    "sync": Algorithm(
        summary="the mean gradient in every step, as with K batches in one; parts of it travel while the "
        "rest is computed",
        paper="arXiv 1604.00981, 2006.15704",
        cost="one average a step, as far as the backward pass does not hide it",
        tau=1,
        gradients=True,
        refuses={
            "tau": "sync averages the gradient of every step: --tau 1, or --algorithm average for rounds of "
            "more",
            "overlap": "sync uses the gradients of every step in that step, and --overlap would make them "
            "late: --algorithm average --tau 1 --overlap does that",
            "momentum": "with sync all workers have the same momentum: --momentum keep",
        },
    ),
    "serial": Algorithm(
        summary="one worker alone, as on one machine",
        cost="none",
        refuses={"workers": "serial is one worker alone: leave --workers out, or choose another --algorithm"},
    ),
    "auto": Algorithm(
        summary="what is recommended for the workers there are: average, with SGD at K times the learning "
        "rate (4 times at most), which falls to what was set over the second half of the rounds; with rounds "
        "of 25 steps or more diloco, outer_lr 0.9 and outer_momentum 0.8, at twice the rate",
        paper="arXiv 1706.02677, 2311.08105",
        cost="as the one it takes",
        recommended=_recommended,
    ),
}


def algorithm(name: str | Algorithm) -> Algorithm:
    """The algorithm of this name, or the one that is given. Raises UsageError for a name there is not."""
    if isinstance(name, Algorithm):
        return name
    if name not in ALGORITHMS:
        raise UsageError(f"there is no algorithm {name!r}: {', '.join(ALGORITHMS)}")
    return ALGORITHMS[name]


def table() -> str:
    """All of them, in Markdown."""
    rows = ["| `--algorithm` | what it is | paper | options and defaults | costs |", "|---|---|---|---|---|"]
    for name, each in ALGORITHMS.items():
        options = re.sub(r"(--[a-z-]+)", r"`\1`", each.defaults)
        rows.append(f"| `{name}` | {each.summary} | {each.paper} | {options} | {each.cost} |")
    return "\n".join(rows) + "\n"


def value_text(value: float | None) -> str:
    """An option's value; None stands for elastic averaging's own rate."""
    return "0.9 / K" if value is None else f"{value:g}"
