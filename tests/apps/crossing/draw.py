"""What a seed draws: one command line, or several that go on from each other's checkpoints.

Options are those of the apps' own commands: a new one is drawn by its type, and needs a line here only where
a type does not say which values make a short run.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

import click

from tests.apps.crossing.line import Line, options_of
from tests.apps.crossing.materials import SOLVERS
from tests.apps.crossing.rules import NESTEROV, broken

M = "{materials}"
"""Stands for the folder of the materials."""

SENSIBLE: Mapping[str, tuple[str, ...]] = {
    "tau": ("1", "2", "3", "4", "auto"),
    "tau_growth": ("0.0002", "0.0004"),
    "overhead": ("0.05", "0.2", "0.9"),
    "rounds": ("1", "2", "3", "4", "5"),
    "batch_size": ("1", "2", "5"),
    "workers": ("1", "2", "2", "2", "3", "3"),
    "time_cap": ("20", "0.002"),
    "solver": tuple(f"{M}/{name}" for name in SOLVERS),
    "weights": (f"{M}/start.caffemodel",),
    "seed": ("0", "7", "4294967296"),
    "test_every": ("0", "1", "2"),
    "output": ("out", "out/deeper"),
    "images": (f"{M}/pictures",),
    "dataset": (f"{M}/pictures",),
    "outer_lr": ("0.5", "1"),
    "outer_momentum": ("0", "0.3"),
    "moving_rate": ("0", "0.1", "0.5"),
    "fragments": ("1", "2", "3", "7"),
    "checkpoint": ("saved",),
    "checkpoint_every": ("1", "2"),
    "checkpoint_keep": ("1", "3"),
    "checkpoint_patience": ("0", "5"),
    "copy_every": ("1", "2"),
    "quorum": ("0.3", "0.5", "1"),
    "grace": ("0", "0.2"),
    "deadline": ("30",),
    "join_deadline": ("40",),
    "shard_memory": ("0b", "1k", "64m"),
    "profile": ("0", "1"),
    "tensorboard": ("curves",),
    "page_port": ("0", "17171"),
    "labels": ("labels.txt",),
    "mean": (),
    "test_images": ("5",),
}
"""Values of short runs, where a type does not say them; an option without any is not drawn."""

NONSENSE: Mapping[str, tuple[str, ...]] = {
    "solver": ("missing.prototxt", f"{M}/wrong.prototxt", M),
    "weights": ("missing.caffemodel", M),
    "data": ("missing", f"{M}/pictures"),
    "images": ("missing",),
    "dataset": ("missing", "nowhere://bucket/x"),
    "output": (f"{M}/wrong.prototxt/out",),
    "tensorboard": (f"{M}/wrong.prototxt/curves",),
    "checkpoint": ("nowhere://bucket/x", f"{M}/wrong.prototxt"),
    "shard_memory": ("4", "-1g", "much"),
    "tau": ("0", "-1", "many", "1.5", ""),
    "seed": ("-1", "100000000000000000000", "x"),
}
"""Values that cannot be, where a type does not say them."""

OFTEN = ("algorithm", "tau", "overlap", "fragments", "momentum", "quorum", "exchange", "wire", "test_every")
_OFTEN, _SELDOM = 0.3, 0.1
# The chances that options which do not go together are mended, and that a value is made to be none.
_MENDED, _NONSENSE = 0.85, 0.12
_RESUMES = 0.25


class UnknownOption(Exception):
    """Nothing says which values an option takes."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """``lines`` run one after the other in one folder. ``trainer`` has the first of them said in Python too,
    and run."""

    seed: int
    lines: tuple[Line, ...]
    trainer: bool


def drawn(seed: int) -> Draw:
    rng = random.Random(seed)
    line = _line(rng)
    lines = [line]
    if rng.random() < _RESUMES and not line.nonsense:
        lines = [_with_checkpoint(line, rng)]
        while len(lines) < 3 and (len(lines) == 1 or rng.random() < 0.4):
            lines.append(_going_on(lines[-1], rng))
    return Draw(seed=seed, lines=tuple(lines), trainer=rng.random() < 0.2)


def _line(rng: random.Random) -> Line:
    app = rng.choice([*["CifarApp"] * 5, *["MnistApp"] * 3, "ImageNetApp"])
    line = Line(app=app, given={**_needed(app, rng), **_given(app, rng)})
    if rng.random() < _MENDED:
        line = _mended(line, rng)
    return _spoilt(line, rng) if rng.random() < _NONSENSE else line


def _needed(app: str, rng: random.Random) -> dict[str, str]:
    """What every line has, so that it is short, and trains on what lies there."""
    data = {"CifarApp": f"{M}/cifar10", "MnistApp": f"{M}/mnist"}
    where = {"data": data[app]} if app in data else {"images": f"{M}/pictures"}
    small = {name: rng.choice(SENSIBLE[name]) for name in ("rounds", "batch_size", "workers")}
    small["tau"] = rng.choice(("2", "3"))
    return {**where, **small, "solver": f"{M}/sgd.prototxt", "output": "out"}


def _given(app: str, rng: random.Random) -> dict[str, str]:
    found = {}
    for name, option in options_of(app).items():
        if name not in ("help", "data") and rng.random() < (_OFTEN if name in OFTEN else _SELDOM):
            value = _sensible(name, option, rng)
            found.update({} if value is None else {name: value})
    if found.get("algorithm") == "serial":
        found["workers"] = "1"
    return found


def _sensible(name: str, option: click.Option, rng: random.Random) -> str | None:
    if name in SENSIBLE:
        return rng.choice(SENSIBLE[name]) if SENSIBLE[name] else None
    kind = option.type
    if option.is_flag:
        return rng.choice(("yes", "no")) if option.secondary_opts else "yes"
    if isinstance(kind, click.Choice):
        return str(rng.choice(list(kind.choices)))
    if isinstance(kind, click.IntRange):
        least = int(kind.min or 0)
        return str(rng.randint(least, min(least + 3, int(kind.max or least + 3))))
    if isinstance(kind, click.FloatRange):
        low = float(kind.min or 0)
        return f"{rng.uniform(low, float(kind.max or low + 2)):.3g}"
    raise UnknownOption(f"--{name} is text: say in SENSIBLE of tests/apps/crossing/draw.py which")


def _mended(line: Line, rng: random.Random) -> Line:
    """Without options that do not go with the others."""
    while rules := [*broken(line), *([NESTEROV] if NESTEROV.broken(line) else [])]:
        names = [name for name in rules[0].names if name in line.given]
        if not names:  # what an app takes by default does not go with something
            break
        dropped = rng.choice([name for name in names if name != "data"] or names)
        line = replace(line, given={n: v for n, v in line.given.items() if n != dropped})
        if dropped in ("solver", "tau"):
            line = replace(line, given={**line.given, **_again(line, dropped)})
    return line


def _again(line: Line, name: str) -> dict[str, str]:
    """What is needed to be short, and goes with the others."""
    if name == "solver":
        return {"solver": f"{M}/sgd.prototxt"}
    return {} if line.algorithm == "sync" else {"tau": "2"}


def _spoilt(line: Line, rng: random.Random) -> Line:
    """One of its options, or another, has a value that cannot be."""
    options = options_of(line.app)
    name = rng.choice([n for n, o in options.items() if n != "help" and not o.is_flag and _wrong(n, o)])
    value = rng.choice(_wrong(name, options[name]))
    return replace(line, given={**line.given, name: value}, nonsense=frozenset([name]))


def _wrong(name: str, option: click.Option) -> tuple[str, ...]:
    if name in NONSENSE:
        return NONSENSE[name]
    kind = option.type
    if isinstance(kind, click.Choice):
        return ("nonsense", "")
    if isinstance(kind, click.IntRange):
        below = str(int(kind.min or 0) - 1)
        above = (str(int(kind.max) + 1),) if kind.max is not None else ()
        return (below, *above, "many", "1.5", "", "nan")
    if isinstance(kind, click.FloatRange):
        least, most = float(kind.min or 0), kind.max
        outside = (f"{least - 1:g}", *([f"{least:g}"] if kind.min_open else []))
        beyond = () if most is None else (f"{most + 1:g}", *([f"{most:g}"] if kind.max_open else []))
        return (*outside, *beyond, "nan", "inf", "-inf", "some", "")
    return ()


def _with_checkpoint(line: Line, rng: random.Random) -> Line:
    given = {**line.given, "checkpoint": "saved", "checkpoint_every": rng.choice(("1", "2"))}
    return replace(line, given={name: value for name, value in given.items() if name != "resume"})


def _going_on(line: Line, rng: random.Random) -> Line:
    """As the line before, with more rounds, and perhaps something else that is different."""
    more = str(int(line.given["rounds"]) + rng.choice((0, 1, 1, 2, 2, 3)))
    given = {**line.given, "rounds": more}
    if rng.random() < 0.9:
        given["resume"] = "yes"
    if rng.random() < 0.5:
        options = options_of(line.app)
        kept = ("help", "data", "images", "dataset", "resume", "checkpoint", "rounds", "workers")
        name = rng.choice(["workers", *OFTEN, *(n for n in options if n not in kept)])
        value = _sensible(name, options[name], rng)
        given |= {} if value is None else {name: value}
    line = replace(line, given=given)
    return _mended(line, rng) if rng.random() < _MENDED else line
