"""``sparknet caffe``, made after Caffe's own tools.

    sparknet caffe train --solver lenet_solver.prototxt
    sparknet caffe train --solver lenet_solver.prototxt --snapshot lenet_iter_5000.solverstate
    sparknet caffe test --model lenet_train_test.prototxt --weights lenet.caffemodel --iterations 100
    sparknet caffe draw lenet_train_test.prototxt lenet.svg

The log goes to stderr in the form of Caffe's, tables to stdout.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from sparknet.errors import ModelError, UsageError

PHASES = {"TRAIN": 0, "TEST": 1}
EFFECTS = click.Choice(["stop", "snapshot", "none"])
FILE = click.Path(path_type=Path)


@click.group()
def caffe() -> None:
    """Caffe's tools: train, test and time nets, draw them, bring old ones up to date, sum them up.

    A net with layers of type "Python" runs the code of the modules that they name (python_param), which may
    say `import caffe`: look at nets that came from elsewhere before you run them.
    """


def device_option(command: Callable[..., None]) -> Callable[..., None]:
    """``--gpu N``: compute there; by default on the CPU, or where the solver says."""
    return click.option("--gpu", type=int, metavar="N", help="Compute on this GPU.")(command)


def precision_option(command: Callable[..., None]) -> Callable[..., None]:
    """``--precision``: in which numbers a net is trained."""
    kinds = click.Choice(["float32", "bf16", "fp16"])
    text = "Compute products in these numbers; weights and losses stay float32."
    return click.option("--precision", type=kinds, default="float32", show_default=True, help=text)(command)


def state_options(command: Callable[..., None]) -> Callable[..., None]:
    """Level and stages of the net."""

    @click.option("--level", type=int, default=0, show_default=True, help="Level of the net.")
    @click.option("--stage", default="", metavar="A,B", help="Stages of the net, joined by commas.")
    @functools.wraps(command)
    def with_stages(*args: Any, stage: str, **options: Any) -> None:
        command(*args, stages=tuple(filter(None, stage.split(","))), **options)

    return with_stages


@caffe.command()
@click.option("--solver", required=True, type=FILE, help="The solver's prototxt.")
@click.option("--weights", default="", help="Start from these .caffemodel files, joined by commas.")
@click.option("--snapshot", type=FILE, help="Go on from this .solverstate.")
@click.option("--iterations", type=int, help="Train to this iteration instead of the solver's max_iter.")
@click.option("--sigint_effect", type=EFFECTS, default="stop", show_default=True, help="What Ctrl-C does.")
@click.option(
    "--sighup_effect", type=EFFECTS, default="snapshot", show_default=True, help="What SIGHUP does."
)
@precision_option
@state_options
@device_option
def train(
    solver: Path,
    weights: str,
    snapshot: Path | None,
    iterations: int | None,
    sigint_effect: str,
    sighup_effect: str,
    precision: str,
    level: int,
    stages: Sequence[str],
    gpu: int | None,
) -> None:
    """Train a net as its solver says, from the start, from weights, or from a snapshot."""
    from sparknet.caffe.glog import init_log
    from sparknet.caffe.schema import load_solver
    from sparknet.caffe.solver import Solver
    from sparknet.caffe.solver.signals import Action, SignalRequests

    if weights and snapshot:
        raise UsageError("give --snapshot to go on with a run, or --weights to begin one with them, not both")
    init_log()
    param = load_solver(solver)
    if iterations is not None:
        param.max_iter = iterations
    if level:
        param.train_state.level = level
    param.train_state.stage.extend(stages)
    if weights:
        param.weights.append(weights)
    with _no_hints():
        running = Solver.for_param(
            param, file=solver, device=None if gpu is None else _gpu(gpu), precision=precision
        )
    _must_have_data(running.net, solver)
    with SignalRequests(sigint=Action(sigint_effect), sighup=Action(sighup_effect)) as requests:
        running.requested_action = requests
        running.solve(snapshot)


@caffe.command()
@click.option("--model", required=True, type=FILE, help="The net's prototxt.")
@click.option("--weights", required=True, type=FILE, help="The .caffemodel to score.")
@click.option("--iterations", type=click.IntRange(1), default=50, show_default=True, help="Batches to score.")
@state_options
@device_option
def test(
    model: Path, weights: Path, iterations: int, level: int, stages: Sequence[str], gpu: int | None
) -> None:
    """Score a net: the means of its outputs over batches of its own data layers."""
    from sparknet.caffe.files import weights as weight_files
    from sparknet.caffe.solver.scores import mean_outputs

    net = _net(model, "TEST", level, stages, gpu)
    _must_have_data(net, model)
    weight_files.load(net, weights)
    scores, loss = mean_outputs(net, iterations)
    click.echo(f"Loss: {loss:g}")
    for score in scores:
        click.echo(str(score))


@caffe.command(name="time")
@click.option("--model", required=True, type=FILE, help="The net's prototxt.")
@click.option("--iterations", type=click.IntRange(1), default=50, show_default=True, help="Passes to time.")
@click.option("--phase", type=click.Choice(list(PHASES)), default="TRAIN", show_default=True)
@precision_option
@state_options
@device_option
def time_command(
    model: Path,
    iterations: int,
    phase: str,
    precision: str,
    level: int,
    stages: Sequence[str],
    gpu: int | None,
) -> None:
    """Time every layer forward and backward."""
    from sparknet.caffe.timing import time_layers

    rows = time_layers(_net(model, phase, level, stages, gpu, precision), iterations)
    table = [(row.name, row.type, f"{row.forward_ms:.3f}", f"{row.backward_ms:.3f}") for row in rows]
    forward, backward = sum(row.forward_ms for row in rows), sum(row.backward_ms for row in rows)
    _print_table(("layer", "type", "forward ms", "backward ms"), table)
    click.echo(f"forward {forward:.3f} ms, backward {backward:.3f} ms, both {forward + backward:.3f} ms")


@caffe.command()
@click.argument("model", type=FILE)
@click.argument("output", type=FILE)
@click.option("--rankdir", default="LR", show_default=True, help="From input to output: TB, BT, LR or RL.")
@click.option("--phase", type=click.Choice([*PHASES, "ALL"]), default="ALL", show_default=True)
@click.option("--display_lrm", is_flag=True, help="Show the learning rate multipliers.")
def draw(model: Path, output: Path, rankdir: str, phase: str, display_lrm: bool) -> None:
    """Draw the net of the prototxt MODEL to OUTPUT: .svg, .dot, .png or another picture."""
    from sparknet.caffe.draw import draw_net_to_file
    from sparknet.caffe.schema import load_net

    draw_net_to_file(load_net(model), output, rankdir, PHASES.get(phase), display_lrm)


@caffe.command()
@click.argument("source", type=FILE)
@click.argument("target", type=FILE, required=False)
@click.option("--solver", is_flag=True, help="SOURCE is a solver, not a net.")
@click.option("--tolerant", is_flag=True, help="Leave out what only forks of Caffe know, and name it.")
def upgrade(source: Path, target: Path | None, solver: bool, tolerant: bool) -> None:
    """Bring an old prototxt (or .caffemodel) up to date, to the file TARGET or to stdout."""
    from google.protobuf import text_format

    from sparknet.caffe import schema

    if source.suffix == ".caffemodel":
        _upgrade_weights(source, target)
        return
    message: Any
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if tolerant and not solver:
            message, skipped = schema.load_net_tolerantly(source)
            for field in skipped:
                click.echo(f"left out: {field}", err=True)
        else:
            message = schema.load_solver(source) if solver else schema.load_net(source)
    for warning in caught:
        click.echo(f"{source}: {warning.message}", err=True)
    text = text_format.MessageToString(message)
    if target is None:
        click.echo(text, nl=False)
    else:
        _written(target, text.encode())


@caffe.command()
@click.argument("model", type=FILE)
@click.option("--phase", type=click.Choice(list(PHASES)), default="TRAIN", show_default=True)
@state_options
def summary(model: Path, phase: str, level: int, stages: Sequence[str]) -> None:
    """Sum up the net of the prototxt MODEL: shapes, parameters, memory and multiply-adds."""
    from sparknet.caffe.summary import summarise

    found = summarise(_net(model, phase, level, stages, None))
    rows = [
        (
            layer.name,
            layer.type,
            "  ".join("x".join(map(str, top)) or "1" for top in layer.tops),
            f"{layer.parameters:,}",
            f"{layer.multiply_adds:,}",
        )
        for layer in found.layers
    ]
    _print_table(("layer", "type", "tops", "parameters", "multiply-adds"), rows)
    click.echo(
        f"{found.parameters:,} parameters ({_megabytes(found.parameter_bytes)}), "
        f"blobs {_megabytes(found.blob_bytes)}, {found.multiply_adds:,} multiply-adds a pass"
    )


def _net(
    model: Path, phase: str, level: int, stages: Sequence[str], gpu: int | None, precision: str = "float32"
) -> Any:
    from sparknet.caffe.net import Net

    with _no_hints():
        device = "cpu" if gpu is None else _gpu(gpu)
        return Net.for_file(model, PHASES[phase], level, stages, device=device, precision=precision)


def _gpu(number: int) -> str:
    import torch

    if number >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UsageError(f"there is no GPU {number} here (found {count}): leave --gpu out to use the CPU")
    return f"cuda:{number}"


def _no_hints() -> warnings.catch_warnings[None]:
    """Settings that Caffe ignores as well are no news to somebody who only runs a net."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def _must_have_data(net: Any, file: Path) -> None:
    if net.input_names:
        names = " and ".join(net.input_names)
        raise UsageError(
            f"{file}: {names} of the net must be fed by a program: train it with one of apps/ (their "
            "--solver), or for this command replace its Input layers by Data, HDF5Data or ImageData layers"
        )


def _upgrade_weights(source: Path, target: Path | None) -> None:
    from google.protobuf.message import DecodeError

    from sparknet.caffe import schema

    if target is None:
        raise UsageError("an upgraded .caffemodel is written to a file: name it after the source")
    try:
        net = schema.NetParameter.FromString(source.read_bytes())
        upgraded = schema.upgrade_net(net).SerializeToString()
    except FileNotFoundError:
        raise UsageError(f"there is no file {source}") from None
    except OSError as error:
        raise UsageError(f"cannot read {source}: {error.strerror}") from None
    except (DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{source}: this is not a .caffemodel: {error}") from error
    except ModelError as error:
        raise UsageError(f"{source}: {error}") from error
    _written(target, upgraded)


def _written(target: Path, content: bytes) -> None:
    try:
        target.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror}") from error


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest entry; numbers, which are the last ones, to the right."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    for row in (heads, *rows):
        cells = [
            cell.rjust(width) if heads[i] not in ("layer", "type", "tops") else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
