"""A draw from its first line to its last, and what is wrong with it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession

from sparknet.checkpoint import Checkpoint, Checkpoints
from sparknet.errors import SparkNetError
from tests.apps.crossing.draw import Draw
from tests.apps.crossing.front import disagreement, fitted
from tests.apps.crossing.judge import Outcome, refusals, refused
from tests.apps.crossing.line import Line
from tests.apps.crossing.run import Ran, run


@dataclass(frozen=True, kw_only=True)
class Played:
    """``ended`` says of each line how it did: "ran", "refused" or "failed"; ``wrong`` what was not as due."""

    seed: int
    lines: tuple[str, ...]
    ended: tuple[str, ...]
    wrong: tuple[str, ...]
    seconds: float


class Stage:
    """Where draws are played: a Spark with ``slots``, and a folder with what they need.

    ``log`` is the file that Spark's Java writes on, if that is known.
    """

    def __init__(self, spark: SparkSession, slots: int, materials: Path, log: Path | None = None) -> None:
        self.spark, self.slots, self.materials, self._log = spark, slots, materials, log

    def play(self, draw: Draw, folder: Path, *, as_program: bool = False) -> Played:
        folder.mkdir(parents=True)
        ended, wrong, seconds = [], list[str](), 0.0
        saved_by: str | None = None
        for number, line in enumerate(draw.lines):
            latest = _latest(line, folder)
            if number == 0:
                wrong += disagreement(line, self.materials, folder)
            said = self._said()
            ran = run(line, folder, self.materials, as_program=as_program)
            ran = replace(ran, java=self._said()[len(said) :])
            seconds += ran.seconds
            found = self._judged(line, ran, folder, latest, saved_by)
            if draw.trainer and number == 0 and ran.status == 0 and not found:
                found += self._in_python(line, ran, folder)
            if as_program and number == 0 and ran.status == 0 and not found:
                found += self._resubmitted(line, ran, folder)
            wrong += [f"line {number + 1}: {each}" for each in found]
            ended.append("ran" if ran.status == 0 else "refused" if ran.status in (2, 3) else "failed")
            saved_by = line.algorithm if ran.status == 0 and line.has("checkpoint") else saved_by
        return Played(
            seed=draw.seed,
            lines=tuple(map(str, draw.lines)),
            ended=tuple(ended),
            wrong=tuple(wrong),
            seconds=seconds,
        )

    def _said(self) -> str:
        return self._log.read_text(errors="replace") if self._log else ""

    def _judged(
        self, line: Line, ran: Ran, folder: Path, latest: Checkpoint | None, saved_by: str | None
    ) -> list[str]:
        due = refusals(line, latest, saved_by, self.materials)
        if due:
            return refused(line, ran, due)
        if ran.status:
            return [f"status {ran.status}: {ran.err.strip()[-600:]}"]
        try:
            return Outcome(line, ran, folder, self.materials, self.slots).wrong(latest)
        except Exception:  # noqa: BLE001 - what it left cannot be judged, which is a fault of its own
            return [f"it left what cannot be judged: {traceback.format_exc()}"]

    def _in_python(self, line: Line, ran: Ran, folder: Path) -> list[str]:
        """The same by ``Trainer``: the same weights, where they are the same every time."""
        outcome = Outcome(line, ran, folder, self.materials, self.slots)
        if not outcome.is_repeatable or line.has("checkpoint"):
            return []
        try:
            trained = fitted(line, self.materials, folder, self.spark)
        except SparkNetError as error:
            return [f"Trainer(...).fit says: {error}"]
        if np.array_equal(trained.weights, outcome.weights):
            return []
        return ["Trainer(...).fit has other weights"]

    def _resubmitted(self, line: Line, ran: Ran, folder: Path) -> list[str]:
        """The same as a job that a cluster saves, and again, which goes on from there: the same weights."""
        due = Outcome(line, ran, folder, self.materials, self.slots)
        if not due.is_repeatable or line.has("checkpoint"):
            return []
        place = folder / "resubmitted"
        place.mkdir()
        saved = {"SPARKNET_CHECKPOINT": str(place / "job"), "SPARKNET_CHECKPOINT_SECONDS": "0"}
        for turn in ("submitted", "resubmitted"):
            again = run(line, place, self.materials, as_program=True, variables=saved)
            if again.status:
                return [f"{turn} it ends with status {again.status}: {again.err.strip()[-300:]}"]
            outcome = Outcome(line, again, place, self.materials, self.slots)
            if [record.round for record in outcome.records] != [record.round for record in due.records]:
                return [f"{turn} it has other rounds on record"]
            if not np.array_equal(outcome.weights, due.weights):
                return [f"{turn} it has other weights"]
        return []


def _latest(line: Line, folder: Path) -> Checkpoint | None:
    if not line.has("checkpoint") or "checkpoint" in line.nonsense:
        return None
    return Checkpoints(str(folder / line.value("checkpoint"))).latest()
