"""What can be asked of a training app on the command line, in one place, and how an app ends.

@training_options(tau=10, rounds=100, batch_size=100, solver="cifar10_quick_solver.prototxt")
def main(options: Options) -> None: ...

if __name__ == "__main__":
    launch(main)
"""

from __future__ import annotations

import math
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, get_args

import click

from apps.sizes import SIZE
from sparknet.algorithms import ALGORITHMS, Algorithm, Asked, algorithm
from sparknet.auto_tau import SHARE, check_overhead
from sparknet.codecs import CODECS
from sparknet.distributed.averaging import COPY_EVERY, Exchange, check_exchange
from sparknet.errors import UsageError
from sparknet.exits import status_of
from sparknet.overlap import check_fragments, check_momentum
from sparknet.trainer.checking import LARGEST_SEED
from sparknet.training import Momentum

_OF_CHECKPOINTS: Mapping[str, float] = {
    "checkpoint_every": 10,
    "checkpoint_keep": 2,
    "checkpoint_patience": 600.0,
}
"""How a run is saved, unless it says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a training app; ``None`` stands for "as the cluster or the net has it".

    Raises UsageError for options that do not go together.
    """

    tau: int | str
    tau_schedule: str
    tau_growth: float | None
    overhead: float
    rounds: int
    batch_size: int
    workers: int | None
    time_cap: float | None
    solver: str
    weights: str | None
    data: str
    images: str | None
    dataset: str | None
    seed: int
    test_every: int
    output: Path
    sampling: str
    algorithm: str
    outer_lr: float | None
    outer_momentum: float | None
    moving_rate: float | None
    overlap: bool
    fragments: int
    momentum: Momentum | None
    checkpoint: str | None
    checkpoint_every: int
    checkpoint_keep: int
    checkpoint_patience: float
    resume: bool
    precision: str
    wire: str
    exchange: Exchange
    copy_every: int
    quorum: float
    grace: float | None
    deadline: float
    join_deadline: float
    shard_memory: int | None
    deterministic: bool
    profile: int
    tensorboard: Path | None
    page: bool
    page_port: int

    def __post_init__(self) -> None:
        if self.resume and self.checkpoint is None:
            raise UsageError("--resume needs --checkpoint: where is the run to go on from?")
        given = [name for name in ("images", "dataset") if getattr(self, name)]
        given += ["data"] if self.data != "auto" else []
        if len(given) > 1:
            raise UsageError(
                f"{' and '.join(f'--{name}' for name in given)} both say what to train on: give one"
            )
        if self.grace is not None and self.quorum == 1:
            raise UsageError("--grace is what a --quorum below 1 leaves the others: give both, or neither")
        for name, absent in _OF_CHECKPOINTS.items():
            if self.checkpoint is None and getattr(self, name) != absent:
                raise UsageError(
                    f"--{name.replace('_', '-')} needs --checkpoint: where is the run to be saved?"
                )
        if self.page_port and not self.page:
            raise UsageError("--page-port is that of the page, and --no-page leaves it out: give one of them")
        if self.tau == "auto" and self.tau_schedule != "constant":
            raise UsageError("--tau auto is a schedule itself: leave --tau-schedule out")
        if (self.tau_schedule == "quadratic") != (self.tau_growth is not None):
            raise UsageError("--tau-growth is the a of --tau-schedule quadratic: give both, or neither")
        self._check_algorithm()

    @property
    def algorithm_options(self) -> dict[str, float | None]:
        """Those that were given; None for the others."""
        return {
            "outer_lr": self.outer_lr,
            "outer_momentum": self.outer_momentum,
            "moving_rate": self.moving_rate,
        }

    def _check_algorithm(self) -> None:
        asked = Asked(
            tau=self.tau,
            overlap=self.overlap,
            momentum=self.momentum,
            quorum=self.quorum,
            exchange=self.exchange,
            copies=self.copy_every != COPY_EVERY,
            workers=self.workers,
        )
        algorithm(self.algorithm).with_options(self.algorithm_options).check(asked)
        check_fragments(self.fragments, self.overlap)
        check_momentum(self.momentum, self.overlap)
        check_overhead(self.overhead, self.tau)
        check_exchange(self.exchange, self.copy_every)

    @property
    def source(self) -> str | None:
        """Where records of any kind are to be read, if that was said."""
        return self.images or self.dataset


class Number(click.FloatRange):
    """A finite number of a range; nan, which compares with nothing, is out of every one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if number != number:
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        if math.isinf(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


_POSITIVE = click.IntRange(min=1)


class _Tau(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in newer versions of click
    """A number of steps, or auto."""

    name = "steps"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return "auto" if value == "auto" else _POSITIVE.convert(value, param, ctx)


def training_options(
    *, tau: int, rounds: int, batch_size: int, solver: str, test_every: int = 10
) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function of ``Options``, with these defaults.

    Further ``click.option``s of the function's own reach it as keyword arguments.
    """
    options = [
        click.option(
            "--tau",
            type=_Tau(),
            metavar="STEPS|auto",
            help="Steps of SGD between two averagings; auto: measured, for exchanges to cost no more than "
            f"--overhead of the time.  [default: {tau}, or the algorithm's]",
        ),
        click.option(
            "--tau-schedule",
            type=click.Choice(["constant", "post-local", "quadratic"]),
            default="constant",
            help="The same in every round; 1 until the rate falls below base_lr, then --tau; or "
            "(a / rate)^2, at least --tau.",
        ),
        click.option(
            "--tau-growth",
            type=Number(min=0, min_open=True),
            metavar="A",
            help="The a of --tau-schedule quadratic.",
        ),
        click.option(
            "--overhead",
            type=Number(min=0, max=1, min_open=True, max_open=True),
            default=SHARE,
            metavar="SHARE",
            help="Of the time, that exchanges may cost with --tau auto.",
        ),
        click.option("--rounds", type=_POSITIVE, default=rounds, help="Averagings in all."),
        click.option("--batch-size", type=_POSITIVE, default=batch_size, help="Images per worker and step."),
        click.option("--workers", type=_POSITIVE, help="Replicas of the net.  [default: all slots]"),
        click.option(
            "--time-cap",
            type=Number(min=0, min_open=True),
            metavar="SECONDS",
            help="A worker begins no step of a round after this time: a slow one does not hold it up.",
        ),
        click.option(
            "--solver", default=solver, metavar="FILE", help="A solver prototxt: a path, or one of the apps'."
        ),
        click.option(
            "--weights",
            type=click.Path(exists=True, dir_okay=False),
            metavar="FILE",
            help="A .caffemodel or .h5 to start from: layers of the same names take its weights.",
        ),
        click.option(
            "--data",
            default="auto",
            metavar="DIR|auto|synthetic",
            help="A folder with the data; auto: $SPARKNET_DATA, else downloaded once; synthetic: drawn.",
        ),
        click.option(
            "--images",
            metavar="DIR|URL",
            help="Train on pictures of your own instead: a folder for each class, or a CSV of labels.",
        ),
        click.option(
            "--dataset",
            metavar="DIR|URL",
            help="Train on what is there instead, of any kind: see docs/sources.md.",
        ),
        click.option(
            "--seed", type=click.IntRange(0, LARGEST_SEED), default=0, help="Of all that is random."
        ),
        click.option(
            "--test-every",
            type=click.IntRange(min=0),
            default=test_every,
            help="Rounds between tests; 0: never.",
        ),
        click.option(
            "--output",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path(),
            help="Folder for the model, the metrics and the report.",
        ),
        click.option(
            "--sampling",
            type=click.Choice(["window", "epoch", "replacement"]),
            default="window",
            help="How a worker reads its shard: tau batches in a row from a random place, as SparkNet does; "
            "every record once an epoch; or each at random.",
        ),
        click.option(
            "--algorithm",
            type=click.Choice(list(ALGORITHMS)),
            help="What becomes of the workers' weights; see below.  [default: average]",
        ),
        click.option("--outer", type=click.Choice(list(ALGORITHMS)), help="Another spelling of --algorithm."),
        click.option(
            "--outer-lr",
            type=Number(min=0, min_open=True),
            metavar="RATE",
            help="How far slowmo and diloco go with the average.  [default: the algorithm's]",
        ),
        click.option(
            "--outer-momentum",
            type=Number(min=0, max=1, max_open=True),
            metavar="SHARE",
            help="The momentum of slowmo and diloco.  [default: the algorithm's]",
        ),
        click.option(
            "--moving-rate",
            type=Number(min=0, max=1, max_open=True),
            metavar="SHARE",
            help="How far elastic averaging pulls a worker and the centre.  [default: the algorithm's]",
        ),
        click.option(
            "--overlap",
            is_flag=True,
            help="Averages travel while the next round is computed, and are merged when that ends.",
        ),
        click.option(
            "--fragments",
            type=click.IntRange(1, 1000),
            default=1,
            metavar="N",
            help="With --overlap: an average travels in so many parts through the round, at a lower rate.",
        ),
        click.option(
            "--momentum",
            type=click.Choice(["keep", "average", "reset"]),
            help="What becomes of a worker's momentum at an averaging.  [default: keep; reset with slowmo]",
        ),
        click.option(
            "--checkpoint",
            metavar="DIR|URL",
            help="Where to save the run's state: a folder, s3://..., or what else fsspec can open.",
        ),
        click.option(
            "--checkpoint-every",
            type=_POSITIVE,
            default=_OF_CHECKPOINTS["checkpoint_every"],
            help="Rounds between two checkpoints.",
        ),
        click.option(
            "--checkpoint-keep",
            type=_POSITIVE,
            default=_OF_CHECKPOINTS["checkpoint_keep"],
            help="Checkpoints to keep, the last ones.",
        ),
        click.option(
            "--checkpoint-patience",
            type=Number(min=0),
            default=_OF_CHECKPOINTS["checkpoint_patience"],
            metavar="SECONDS",
            help="How long saving may fail before the run ends: it trains on, and tries again, meanwhile.",
        ),
        click.option(
            "--resume", is_flag=True, help="Go on from the last checkpoint in --checkpoint, if there is one."
        ),
        click.option(
            "--precision",
            type=click.Choice(["float32", "bf16", "fp16"]),
            default="float32",
            help="What the net's products are computed in; weights, losses and averages stay float32.",
        ),
        click.option(
            "--wire",
            type=click.Choice(list(CODECS)),
            default="float32",
            help="How weights travel: as they are, or what has changed in 2 bytes or 1 a number.",
        ),
        click.option(
            "--exchange",
            type=click.Choice(get_args(Exchange)),
            default="auto",
            help="Whether weights go through the driver (star) or among the workers (ring); auto: by size.",
        ),
        click.option(
            "--copy-every",
            type=_POSITIVE,
            default=COPY_EVERY,
            metavar="ROUNDS",
            help="How often the driver fetches the weights of a ring: no more rounds are lost, even if all "
            "workers are lost at once.",
        ),
        click.option(
            "--quorum",
            type=Number(min=0, max=1, min_open=True),
            default=1.0,
            metavar="SHARE",
            help="A round waits for this share of the workers, then no longer than --grace for the others.",
        ),
        click.option(
            "--grace",
            type=Number(min=0),
            metavar="SECONDS",
            help="What the others have left once there is a --quorum; what they bring later counts in the "
            "round in which it comes, unless weights go among the workers (ring).  "
            "[default: a quarter of what the quorum took]",
        ),
        click.option(
            "--deadline",
            type=Number(min=0, min_open=True),
            default=3600.0,
            metavar="SECONDS",
            help="A worker that takes longer for a round is given up until it comes back or is replaced; "
            "one that hangs while the others are long done, much sooner.",
        ),
        click.option(
            "--join-deadline",
            type=Number(min=0, min_open=True),
            default=180.0,
            metavar="SECONDS",
            help="How long to wait for the workers: for all at the start, for one when none is left.",
        ),
        click.option(
            "--shard-memory",
            type=SIZE,
            metavar="SIZE",
            help="A worker's data past this (512m, 4g) lies in a file in SPARK_LOCAL_DIRS, not in memory.  "
            "[default: half of the worker's part of what is free]",
        ),
        click.option(
            "--deterministic",
            is_flag=True,
            help="The same numbers in every run on GPUs too; what torch cannot repeat is an error.",
        ),
        click.option(
            "--profile",
            type=click.IntRange(min=0, max=100),
            default=0,
            metavar="ROUNDS",
            help="Rounds of each worker to trace with torch's profiler; the traces are left in --output.",
        ),
        click.option(
            "--tensorboard",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Where to write curves for TensorBoard.  [default: tensorboard in --output]",
        ),
        click.option(
            "--page/--no-page",
            default=True,
            help="Show the run on a page of this machine while it trains; sparknet-ec2 ui leads there.",
        ),
        click.option(
            "--page-port",
            type=click.IntRange(0, 65535),
            default=0,
            metavar="PORT",
            help="Of the page, on 127.0.0.1; 0: a free one, the same when the run goes on later.",
        ),
    ]

    def make(function: Callable[..., None]) -> click.Command:
        def command(**values: Any) -> None:
            values["algorithm"] = _chosen(values.pop("outer"), values["algorithm"])
            values["tau"] = values["tau"] or algorithm(values["algorithm"]).tau or tau
            ours = {name: values.pop(name) for name in Options.__annotations__}
            function(Options(**ours), **values)

        # the function's own options come first in its help
        command.__dict__.update(function.__dict__)
        for option in reversed(options):
            command = option(command)
        context = {"show_default": True, "help_option_names": ["-h", "--help"], "max_content_width": 110}
        return click.command(help=function.__doc__, epilog=_EPILOG, context_settings=context)(command)

    return make


def _described(name: str, each: Algorithm) -> str:
    paper = f" ({each.paper})" if each.paper else ""
    options = f"{each.defaults}; " if each.defaults else ""
    return f"  {name:<15} {each.summary}{paper}\n{'':<18}{options}costs: {each.cost}"


_EPILOG = (
    "\b\nAlgorithms, their options with the defaults, and what a round costs beyond its steps:\n"
    + "\n".join(_described(name, each) for name, each in ALGORITHMS.items())
)


def _chosen(outer: str | None, given: str | None) -> str:
    """The algorithm, which two options name. Raises UsageError if they differ."""
    if outer and given and outer != given:
        raise UsageError(f"--algorithm {given} and --outer {outer} name one thing: give one of them")
    return given or outer or "average"


def launch(command: click.Command) -> NoReturn:
    """Run ``command`` and leave with its exit status: one sentence on stderr where it fails, no traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    # said at every start beside pandas 3, which nothing here uses
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
    sys.exit(status_of(lambda: command.main(standalone_mode=False)))


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM, as from ``sparknet-ec2 cancel``, ends an app as Ctrl-C does."""
    raise KeyboardInterrupt
