"""``sparknet plan``: what a run would bring and cost, by number of workers, before it is made.

sparknet plan --megabytes 244 --step-time 2s --batch-size 256 --bandwidth 1gbit --tau 1,10,50 --workers 5
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparknet.cli.quantities import COUNTS, DURATION, PER_HOUR, RATE, some_of
from sparknet.errors import UsageError

if TYPE_CHECKING:
    from sparknet.simulation.forecast import Forecast
    from sparknet.simulation.machines import Machines

_ALGORITHMS = ["average", "slowmo", "diloco", "easgd", "easgd-lockfree", "eamsgd", "sync", "auto"]
_WIRES = ["float32", "bfloat16", "int8"]
# Passes that are timed where nobody says how long a step takes.
_PASSES = 3
_HEADING = f"{'workers':>8}{'tau':>6}{'images/s':>12}{'goodput':>9}{'round s':>10}{'exchange s':>12}"
_DOLLARS = f"{'$/epoch':>10}"


@click.command()
@click.option("--workers", type=COUNTS, default="4..1024", show_default=True, help="4..1024 doubles; or 2,5.")
@click.option(
    "--model", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="A net's prototxt."
)
@click.option("--megabytes", type=click.FloatRange(min=0, min_open=True), help="Of weights, in place of one.")
@click.option("--step-time", type=DURATION, help="Of a step of a worker.  [default: measured here]")
@click.option("--batch-size", type=click.IntRange(1), help="Images a step.  [default: the net's]")
@click.option("--bandwidth", type=RATE, default="1gbit", show_default=True, help="Of each link, each way.")
@click.option("--driver-bandwidth", type=RATE, help="Of the driver's link.  [default: as the others]")
@click.option("--latency", type=DURATION, default="1ms", show_default=True, help="One way.")
@click.option(
    "--congestion",
    type=click.Choice(["cubic", "reno", "bbr"]),
    default="cubic",
    show_default=True,
    help="What TCP goes by (sysctl net.ipv4.tcp_congestion_control): after a pause bbr is as fast as before.",
)
@click.option("--jitter", type=click.FloatRange(0, 1), default=0.05, show_default=True, help="Of step times.")
@click.option("--algorithm", type=some_of(_ALGORITHMS), default="average", show_default=True, help="Several.")
@click.option("--tau", type=some_of(["auto"], numbers=True), default="10", show_default=True, help="Several.")
@click.option("--exchange", type=some_of(["star", "ring"]), default="star,ring", show_default=True)
@click.option("--wire", type=some_of(_WIRES), default="float32", show_default=True, help="Several.")
@click.option("--overlap", type=click.Choice(["no", "yes", "both"]), default="no", show_default=True)
@click.option("--reclaims", type=PER_HOUR, default="0/h", show_default=True, help="Of each machine.")
@click.option("--replacement", type=DURATION, default="120s", show_default=True, help="Until another works.")
@click.option("--dollars-per-hour", type=click.FloatRange(0), help="A worker's machine.")
@click.option("--driver-dollars", type=click.FloatRange(0), default=0.0, help="The driver's, an hour.")
@click.option("--epoch", type=click.IntRange(1), default=50_000, show_default=True, help="Images in one.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--csv", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the table there too."
)
def plan(
    workers: tuple[int, ...],
    dollars_per_hour: float | None,
    driver_dollars: float,
    epoch: int,
    seed: int,
    file: Path | None,
    **options: Any,
) -> None:
    """Forecast a run by simulating it: images/s, goodput and dollars, by number of workers.

    The rounds and the membership are the engine's own, led through simulated workers on a simulated clock;
    steps and transfers take as long as the options say. What is learnt in a step, and so how many epochs are
    needed, is not simulated. Goodput is the images that count, of those the machines would make if none ever
    waited. A machine that is reclaimed is replaced; until then its part of the data is not trained on.
    """
    from sparknet.simulation.forecast import forecast, limits, ways

    machines = _machines(options)
    overlaps = {"no": [False], "yes": [True], "both": [False, True]}[options["overlap"]]
    prices = None if dollars_per_hour is None else (epoch, dollars_per_hour, driver_dollars)
    rows: list[dict[str, Any]] = []
    for way in ways(options["algorithm"], options["tau"], options["exchange"], options["wire"], overlaps):
        click.echo(f"\n{way}\n{_HEADING}{_DOLLARS if prices else ''}")
        found = list[Any]()
        for count in workers:
            found.append(forecast(machines, count, way, seed))
            cost = found[-1].dollars_an_epoch(*prices) if prices else None
            click.echo(_line(found[-1], cost))
            rows.append(_row(found[-1], cost))
        if len(found) > 1:
            click.echo(_verdict(*limits(found), workers[-1]))
    if file:
        _write(file, rows)


def _machines(options: dict[str, Any]) -> Machines:
    from sparknet.simulation.machines import FLOAT_BYTES, Machines

    parameters, step, batch = _of_model(options)
    if options["megabytes"] is not None:
        parameters = round(options["megabytes"] * 1e6 / FLOAT_BYTES)
    if not parameters:
        raise UsageError("nothing says how large the net is: give --model FILE or --megabytes")
    if step is None:
        raise UsageError("nothing says how long a step takes: give --step-time, or a --model to time")
    return Machines(
        parameters=parameters,
        step_seconds=step,
        batch_size=batch or 1,
        bandwidth=options["bandwidth"],
        driver_bandwidth=options["driver_bandwidth"] or 0.0,
        latency=options["latency"],
        congestion=options["congestion"],
        jitter=options["jitter"],
        reclaims=options["reclaims"],
        replacement_seconds=options["replacement"],
    )


def _of_model(options: dict[str, Any]) -> tuple[int, float | None, int | None]:
    """How many parameters there are, how long a step takes, and of how many images, as far as is known."""
    file, step, batch = options["model"], options["step_time"], options["batch_size"]
    if file is None:
        return 0, step, batch
    from sparknet.caffe import TRAIN
    from sparknet.caffe.net import Net
    from sparknet.caffe.summary import summarise
    from sparknet.caffe.timing import time_layers

    net = Net.for_file(file, TRAIN)
    inputs = [blob for node in net.nodes if not node.bottoms for blob in node.tops]
    own = inputs[0].shape[0] if inputs else 1
    if step is None:
        step = sum(layer.forward_ms + layer.backward_ms for layer in time_layers(net, _PASSES)) / 1e3
        step *= (batch or own) / own
        click.echo(
            f"a step of {batch or own} images takes {1e3 * step:,.3g} ms here (--step-time: elsewhere)"
        )
    return summarise(net).parameters, step, batch or own


def _line(each: Forecast, cost: float | None) -> str:
    dollars = "" if cost is None else f"{cost:>10.3g}"
    return (
        f"{each.workers:>8}{each.tau:>6}{each.images_per_second:>12,.0f}{each.goodput:>9.2f}"
        f"{each.round_seconds:>10.3f}{each.exchange_seconds:>12.3f}{dollars}"
    )


def _row(each: Forecast, cost: float | None) -> dict[str, Any]:
    own = {name: value for name, value in vars(each).items() if name not in ("way", "tau")}
    way = {name: value for name, value in vars(each.way).items() if name != "time_cap_seconds"}
    return {**way, "tau": each.tau, **own, "dollars_an_epoch": cost}


def _verdict(lost: int | None, fastest: int, most: int) -> str:
    half = (
        "more than half of the machines' time counts throughout"
        if lost is None
        else (f"half of the machines' time is lost from {lost} workers on")
    )
    best = "faster with every doubling" if fastest == most else f"fastest with {fastest}"
    return f"{half}; {best}"


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        table = csv.DictWriter(out, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
