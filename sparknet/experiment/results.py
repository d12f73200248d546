"""The runs of an experiment as they come: kept in ``runs.jsonl``, so that what was made is not made again."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sparknet.errors import UsageError
from sparknet.experiment.study import Study
from sparknet.experiment.trial import Outcome, run

Told = Callable[[Outcome], object]


class Results:
    """Of ``study``, in ``folder``. Raises UsageError if what is there was made by other settings."""

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self.file = folder / "runs.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._known = self._read()
            if not self.file.exists():
                self.file.write_text(json.dumps({"settings": study.settings}) + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"{folder} cannot be written ({error.strerror}): give another --output"
            ) from error

    @property
    def outcomes(self) -> list[Outcome]:
        """Those there are of the study's runs, in its order."""
        return [self._known[trial.key] for trial in self.study.trials if trial.key in self._known]

    def complete(self, tell: Told, jobs: int = 1) -> None:
        """Make the runs that are missing, ``jobs`` at a time; ``tell`` is told of each."""
        missing = [trial for trial in self.study.trials if trial.key not in self._known]
        for outcome in _made(self.study, missing, jobs):
            self._known[outcome.trial.key] = outcome
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(outcome.values) + "\n")
            tell(outcome)

    def write_table(self) -> Path:
        """``results.csv``: a line for each run, with its speed-up."""
        rows = [self._row(outcome) for outcome in self.outcomes]
        file = self.folder / "results.csv"
        with file.open("w", encoding="utf-8", newline="") as out:
            table = csv.DictWriter(out, rows[0].keys())
            table.writeheader()
            table.writerows(rows)
        return file

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        own = {name: value for name, value in outcome.values.items() if name not in ("trial", "curve")}
        return {**asdict(outcome.trial), **own, "speed_up": speed_up(outcome, self.outcomes)}

    def _read(self) -> dict[str, Outcome]:
        if not self.file.exists():
            return {}
        text = self.file.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):  # it was killed as it wrote
            with self.file.open("a", encoding="utf-8") as file:
                file.write("\n")
        lines = text.splitlines()
        settings = json.loads(lines[0])["settings"] if lines else {}
        due = json.loads(json.dumps(self.study.settings))
        if settings != due:
            changed = next(name for name in {**due, **settings} if settings.get(name) != due.get(name))
            raise UsageError(
                f"{self.file} has runs with {changed} {settings.get(changed)!r}, not {due.get(changed)!r}: "
                "give another --output, or remove it"
            )
        outcomes = [Outcome.of(values) for values in map(_parsed, lines[1:]) if values]
        return {outcome.trial.key: outcome for outcome in outcomes}


def speed_up(outcome: Outcome, among: Sequence[Outcome]) -> float | None:
    """How many times fewer steps a worker needed to the goal than one that is alone: SparkNet's figure 3.

    The lone workers are those ``among`` the runs with the same seed and rate; of several the mean counts.
    """
    mine = outcome.trial
    alone = [
        other.goal_steps
        for other in among
        if other.trial.workers == 1
        and other.goal_steps is not None
        and (other.trial.seed, other.trial.base_lr) == (mine.seed, mine.base_lr)
    ]
    if not alone or outcome.goal_steps is None:
        return None
    return sum(alone) / len(alone) / outcome.goal_steps


def _made(study: Study, trials: Sequence[Any], jobs: int) -> Iterator[Outcome]:
    if jobs == 1:
        yield from (run(study, trial) for trial in trials)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as processes:
        running = [processes.submit(run, study, trial) for trial in trials]
        try:
            yield from (done.result() for done in as_completed(running))
        finally:
            processes.shutdown(wait=False, cancel_futures=True)


def _parsed(line: str) -> dict[str, Any] | None:
    """None for a line that was cut short: its run is made again."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "trial" in found else None
