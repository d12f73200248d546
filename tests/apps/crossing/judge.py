"""Whether what became of a line is what had to: refused in a sentence, or run to its end as it was asked."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparknet.checkpoint import Checkpoint, Checkpoints
from sparknet.codecs import get_codec
from sparknet.reporting import metrics
from sparknet.reporting.metrics import Record
from sparknet.weights import Vector
from tests.apps.crossing.line import Line
from tests.apps.crossing.reference import (
    Reference,
    model_of,
    momentum_of,
    reference,
    tau_after,
    workers_of,
)
from tests.apps.crossing.rules import NESTEROV, broken
from tests.apps.crossing.run import Ran

_ROW = re.compile(r'<tr><th scope="row">([^<]*)</th><td>([^<]*)</td></tr>')
_HEADERS = 3000
"""Bytes that plans and reports of a worker and round have, at most, besides its weights."""

_EXPLAINED = ("Usage: ", "Try ", "note: ")


def refusals(
    line: Line, latest: Checkpoint | None, algorithm: str | None, materials: Path | None = None
) -> list[str]:
    """Why the line must be refused; ``latest`` is what it finds saved, made by ``algorithm``."""
    found = [f"the value of {name}" for name in line.nonsense] + [str(rule) for rule in broken(line)]
    if found:
        return found
    if NESTEROV.broken(line):
        found.append("solver")
    if latest and not line.value("resume"):
        found.append("resume")
    if latest and latest.round >= line.value("rounds"):
        found.append("rounds")
    fits = line.app == "CifarApp" and not line.value("solver").endswith("other.prototxt")
    if line.has("weights") and not latest and not fits:
        found.append("weights")
    if latest and line.value("resume") and algorithm != line.algorithm:
        found.append("algorithm")
    if latest and materials and not _fits(latest, line, materials):
        found.append("solver")
    return found


def _fits(latest: Checkpoint, line: Line, materials: Path) -> bool:
    """Whether weights and memory of what is saved are those of the line's net and solver."""
    replica = model_of(line, materials)()
    histories = {state.history.size for state in latest.workers.values() if state.history is not None}
    return latest.weights.size == replica.weights.numel() and histories <= {replica.history().numel()}


def refused(line: Line, ran: Ran, due: Sequence[str]) -> list[str]:
    """What is wrong with how a line was refused that had to be, for what is ``due``."""
    wrong = []
    if ran.status not in ((2, 3, 7) if "checkpoint" in line.nonsense else (2, 3)):
        wrong.append(f"status {ran.status} where {', '.join(due)} must be refused")
    if ran.made:
        wrong.append(f"refused, but it left {', '.join(sorted(ran.made)[:3])}")
    return [*wrong, *_one_sentence(ran)]


def _one_sentence(ran: Ran) -> list[str]:
    others = [
        line
        for line in ran.err.splitlines()
        if line.strip() and not line.startswith(_EXPLAINED) and not line.startswith("Error: ")
    ]
    if (
        "Traceback" in ran.err + ran.out + ran.java
        or "Exception" in ran.java
        or len(ran.errors) != 1
        or others
    ):
        return [f"not one sentence on stderr: {(ran.err + ran.java).strip()[-300:]!r}"]
    return []


def _may_miss(lost: str, line: Line) -> bool:
    """Whether a worker may have been left out of a round without anything being wrong."""
    is_late = "later than the others" in lost and line.value("quorum") < 1
    return is_late or "times the median" in lost


class Outcome:
    """A line that ran to its end in ``folder``: what it left, and what is wrong with it.

    ``before`` is the checkpoint that it went on from, if any.
    """

    def __init__(self, line: Line, ran: Ran, folder: Path, materials: Path, slots: int) -> None:
        self.line, self.ran, self.folder, self.materials, self.slots = line, ran, folder, materials, slots
        self.workers = workers_of(line, slots)
        self.model = model_of(line, materials)
        self.output = folder / line.value("output")
        self.records = metrics.read(self.output / "metrics.jsonl")
        text = (self.output / "report.html").read_text(encoding="utf-8")
        self.settings = {html.unescape(name): html.unescape(value) for name, value in _ROW.findall(text)}

    def wrong(self, latest: Checkpoint | None) -> list[str]:
        new = [record for record in self.records if record.round > (latest.round if latest else 0)]
        found = [*self._rows(new), *self._settings(), *self._files()]
        if "Exception" in self.ran.java:
            found.append(f"Spark's Java said {self.ran.java.strip()[:300]!r}")
        for record in new:
            found += [f"round {record.round}: {each}" for each in self._round(record)]
        if not any(record.loss is None for record in self.records):
            found += self._compared(latest)
        return found

    def _rows(self, new: Sequence[Record]) -> list[str]:
        rounds = self.line.value("rounds")
        wrong = []
        if [record.round for record in self.records] != list(range(1, rounds + 1)):
            wrong.append(f"rows of rounds {[record.round for record in self.records]}, of {rounds}")
        said = re.findall(r"^round (\d+)/", self.ran.out, re.MULTILINE)
        if said != [str(record.round) for record in new]:
            wrong.append(f"lines of rounds {said}")
        return wrong

    def _settings(self) -> list[str]:
        """What the report says was in force."""
        line, table = self.line, self.settings
        parts = f", in {line.value('fragments')} parts" if line.value("fragments") > 1 else ""
        exchange = line.value("exchange")
        if exchange == "auto":  # gradients overlap with what computes them among workers
            exchange = "auto: ring" if line.algorithm == "sync" and self.workers > 1 else "auto: star"
        due = {
            "algorithm": rf"{re.escape(line.algorithm)}[:,].*momentum: {momentum_of(line)}",
            "exchange of weights": re.escape(f"{exchange}, {line.value('wire')}{parts}"),
            "rounds": str(line.value("rounds")),
            "workers": rf"{self.workers} workers?, .*",
            "batch size": rf"{line.value('batch_size')} .*",
            "sampling": line.value("sampling"),
            "seed": str(line.value("seed")),
            "tau": ".* steps a round" + (", overlapped" if line.value("overlap") else ""),
            "precision": line.value("precision") + (", deterministic" if line.value("deterministic") else ""),
            "time cap": f"{line.value('time_cap'):g} s a round" if line.value("time_cap") else "none",
            "a round waits for": r"all workers.*"
            if line.value("quorum") == 1
            else rf"{line.value('quorum'):.0%} .*",
        }
        wrong = [
            f"the report says {name}: {table.get(name)}, not {pattern}"
            for name, pattern in due.items()
            if not re.fullmatch(pattern, table.get(name, ""))
        ]
        for name in ("outer_lr", "outer_momentum", "moving_rate"):
            if line.has(name) and f"{name} {line.value(name):g}" not in table.get("algorithm", ""):
                wrong.append(f"the report does not say {name}: {table.get('algorithm')}")
        return wrong

    def _files(self) -> list[str]:
        line, wrong = self.line, []
        curves = (
            self.folder / line.value("tensorboard")
            if line.has("tensorboard")
            else self.output / "tensorboard"
        )
        due = [self.output / "curve.png", self.output / "model.caffemodel", curves]
        wrong += [f"there is no {path.relative_to(self.folder)}" for path in due if not path.exists()]
        traces = list((self.output / "profile").glob("*.json.gz"))
        if line.value("profile") and not traces and "nothing was traced" not in self.ran.err:
            wrong.append("there are no traces, and nobody says so")
        if line.has("checkpoint"):
            saved = Checkpoints(str(self.folder / line.value("checkpoint")))
            last = saved.latest()
            if last is None or last.round != line.value("rounds"):
                wrong.append(f"the last checkpoint is of round {last and last.round}")
            elif not np.array_equal(last.weights, self.weights):
                wrong.append("the last checkpoint has other weights than the model")
            if len(saved.storage.names("round-*")) > line.value("checkpoint_keep"):
                wrong.append("too many checkpoints are kept")
        return wrong

    def _round(self, record: Record) -> list[str]:
        line, wrong = self.line, []
        rate = self.records[record.round - 2].lr if record.round > 1 else None
        tau = tau_after(line, self.model, rate)
        # elastic workers have been given the plan of an earlier round
        if (
            tau is not None
            and record.tau != tau
            and not (line.is_elastic and line.value("tau_schedule") != "constant")
        ):
            wrong.append(f"tau is {record.tau}, not {tau}")
        if not line.value("time_cap") and not line.is_elastic and record.steps != record.tau * record.workers:
            wrong.append(f"{record.steps} steps of {record.workers} workers at tau {record.tau}")
        lost = [each for each in record.lost if not _may_miss(each, line)]
        if lost or record.left:
            wrong.append(f"workers were lost: {lost or record.left}")
        rejected = sum("times the median" in each for each in record.lost)
        least = math.ceil(line.value("quorum") * min(self.workers, self.slots)) - rejected
        if record.workers < (1 if line.is_elastic else least):
            wrong.append(f"{record.workers} workers where {least} were to be waited for")
        if not line.is_elastic and record.workers > min(self.workers, self.slots):
            wrong.append(f"{record.workers} workers of {self.workers}")
        every = line.value("test_every")
        tested = every > 0 and (record.round % every == 0 or record.round == line.value("rounds"))
        if tested != (record.accuracy is not None):
            wrong.append(f"tested: {not tested}, with a test every {every} rounds")
        return [*wrong, *self._bytes(record)]

    def _bytes(self, record: Record) -> list[str]:
        """How the weights have travelled, by what was sent."""
        line, size = self.line, self.weights.size
        if line.algorithm == "sync":  # gradients, in parts
            return []
        in_ring = line.value("exchange") == "ring" and self.workers > 1 and record.workers > 1
        if in_ring != (record.bytes_between > 0):
            return [f"{record.bytes_between} bytes between workers, exchange {line.value('exchange')}"]
        if line.value("exchange") == "ring":
            return []
        each = get_codec(line.value("wire")).size(size)
        if momentum_of(line) == "average":  # momentum travels as it is
            each += 4 * self.model().history().numel()
        # those whose work does not count have sent it
        fewest, most = (each * count for count in (record.workers, record.workers + len(record.lost)))
        if line.is_elastic:  # a worker may have been there twice
            fewest, most = each * record.workers, each * record.steps
        if not fewest <= record.bytes_received <= most + _HEADERS * max(self.workers, record.steps):
            return [f"{record.bytes_received} bytes received where {fewest} to {most} are the weights"]
        return []

    @property
    def weights(self) -> Vector:
        replica = self.model()
        replica.net.copy_from(self.output / "model.caffemodel")
        return np.array(replica.weights.numpy())

    @property
    def is_repeatable(self) -> bool:
        """Whether another run of the line has the same weights, bit for bit."""
        one = self.workers == 1 or self.line.value("exchange") != "ring"
        return one and self._comparable(None) and self.line.tau != "auto"

    def _comparable(self, latest: Checkpoint | None) -> bool:
        """Whether one process can do the same, in the same order."""
        line = self.line
        new = [record for record in self.records if record.round > (latest.round if latest else 0)]
        return (
            not (line.has("images") or line.has("dataset"))
            and self.workers <= self.slots
            and not (line.is_elastic and self.workers > 1)
            and not (line.tau == "auto" and line.value("overlap"))
            and all(
                record.workers == self.workers and record.steps == record.tau * self.workers for record in new
            )
        )

    def _compared(self, latest: Checkpoint | None) -> list[str]:
        if not np.isfinite(self.weights).all():
            return ["there are weights that are not finite"]
        if not self._comparable(latest):
            return []
        due = reference(self.line, self.materials, latest, self.records, self.slots)
        return self._differences(due)

    def _differences(self, due: Reference) -> list[str]:
        line, last = self.line, due.rounds[-1]
        # a ring of one does not round at all, or only as a ring does
        alone = self.workers == 1 and line.value("wire") == "float32"
        exact = (line.value("exchange") != "ring" and line.algorithm != "sync") or alone
        off = float(np.linalg.norm(self.weights - last.weights))
        moved = float(np.linalg.norm(last.weights - due.start))
        if exact and off:
            return [f"the weights differ from those of one process by {off:.3g}, of {moved:.3g} moved"]
        allowed = {"float32": 1e-5, "bfloat16": 2e-2, "int8": 5e-2}[line.value("wire")]
        if off > allowed * max(moved, 1e-6):
            return [f"the weights differ from those of one process by {off / moved:.2g} of what they moved"]
        losses = {record.round: record.loss for record in self.records}
        unlike = [done.number for done in due.rounds if exact and losses[done.number] != done.loss]
        return [f"the losses of rounds {unlike} differ from those of one process"] if unlike else []
