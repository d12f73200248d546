"""What must be refused, as the documentation has it: written down a second time, to judge the apps by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.apps.crossing.line import Line


@dataclass(frozen=True, kw_only=True)
class Rule:
    """``broken`` by a line that must be refused; ``names`` are the options that do not go together.

    ``cli`` alone has it where Python's arguments cannot say such a thing.
    """

    names: tuple[str, ...]
    broken: Callable[[Line], bool]
    cli: bool = False

    def __str__(self) -> str:
        return " and ".join(self.names)


def _elastic(name: str, asked: Callable[[Line], bool]) -> Rule:
    return Rule(names=("algorithm", "outer", name), broken=lambda line: line.is_elastic and asked(line))


def _differs(name: str) -> Callable[[Line], bool]:
    """Whether an option says something else than what holds without it."""

    def differs(line: Line) -> bool:
        absent = Line(app=line.app).value(name)
        return line.has(name) and line.value(name) != absent

    return differs


def _only_with(name: str, needed: Callable[[Line], bool], *others: str, cli: bool = False) -> Rule:
    differs = _differs(name)
    return Rule(names=(name, *others), broken=lambda line: differs(line) and not needed(line), cli=cli)


def _sources(line: Line) -> int:
    return sum(line.has(name) for name in ("images", "dataset")) + bool(line.value("data") != "auto")


RULES = (
    Rule(
        names=("algorithm", "outer"),
        broken=lambda line: (
            line.has("algorithm") and line.has("outer") and line.value("algorithm") != line.value("outer")
        ),
        cli=True,
    ),
    Rule(names=("resume",), broken=lambda line: line.value("resume") and not line.has("checkpoint")),
    Rule(names=("images", "dataset", "data"), broken=lambda line: _sources(line) > 1, cli=True),
    _only_with("grace", lambda line: line.value("quorum") < 1, "quorum"),
    Rule(
        names=("tau", "tau_schedule"),
        broken=lambda line: line.tau == "auto" and line.value("tau_schedule") != "constant",
        cli=True,
    ),
    Rule(
        names=("tau_schedule", "tau_growth"),
        broken=lambda line: (line.value("tau_schedule") == "quadratic") != line.has("tau_growth"),
        cli=True,
    ),
    Rule(
        names=("algorithm", "outer", "outer_lr"),
        broken=lambda line: line.has("outer_lr") and line.algorithm not in ("slowmo", "diloco"),
    ),
    Rule(
        names=("algorithm", "outer", "outer_momentum"),
        broken=lambda line: line.has("outer_momentum") and line.algorithm not in ("slowmo", "diloco"),
    ),
    Rule(
        names=("algorithm", "outer", "moving_rate"),
        broken=lambda line: line.has("moving_rate") and not line.is_elastic,
    ),
    _elastic("overlap", lambda line: line.value("overlap")),
    _elastic("momentum", lambda line: line.value("momentum") not in (None, "keep")),
    _elastic("quorum", lambda line: line.value("quorum") < 1),
    _elastic("tau", lambda line: line.tau == "auto"),
    _elastic("exchange", lambda line: line.value("exchange") == "ring"),
    Rule(
        names=("algorithm", "outer", "tau", "tau_schedule"),
        broken=lambda line: (
            line.algorithm == "sync" and (line.tau != 1 or line.value("tau_schedule") != "constant")
        ),
    ),
    Rule(
        names=("algorithm", "outer", "overlap"),
        broken=lambda line: line.algorithm == "sync" and line.value("overlap"),
    ),
    Rule(
        names=("algorithm", "outer", "momentum"),
        broken=lambda line: line.algorithm == "sync" and line.value("momentum") not in (None, "keep"),
    ),
    Rule(
        names=("algorithm", "outer", "workers"),
        broken=lambda line: line.algorithm == "serial" and line.value("workers") not in (None, 1),
    ),
    Rule(
        names=("fragments", "overlap"),
        broken=lambda line: line.value("fragments") > 1 and not line.value("overlap"),
    ),
    Rule(
        names=("overlap", "momentum"),
        broken=lambda line: line.value("overlap") and line.value("momentum") == "average",
    ),
    _only_with("overhead", lambda line: line.tau == "auto", "tau"),
    _only_with(
        "copy_every", lambda line: line.value("exchange") != "star" and not line.is_elastic, "exchange"
    ),
    _only_with("checkpoint_every", lambda line: line.has("checkpoint"), cli=True),
    _only_with("checkpoint_keep", lambda line: line.has("checkpoint"), cli=True),
    _only_with("checkpoint_patience", lambda line: line.has("checkpoint"), cli=True),
    _only_with("page_port", lambda line: line.value("page"), "page", cli=True),
)

NESTEROV = Rule(
    names=("algorithm", "outer", "solver"),
    broken=lambda line: (
        line.algorithm == "eamsgd"
        and line.value("solver").rpartition("/")[2] in ("adam.prototxt", "plain.prototxt")
    ),
)
"""Said once the net is known: after ``Trainer(...)``, before training."""


def broken(line: Line) -> list[Rule]:
    """The rules that the options of a line break together, whatever is in its files."""
    return [rule for rule in RULES if not line.nonsense.intersection(rule.names) and rule.broken(line)]
