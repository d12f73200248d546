"""What a run leaves behind: its records as they come, and model and report when it ends, however it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from sparknet.errors import UsageError
from sparknet.reporting import metrics, progress, report
from sparknet.reporting.metrics import Log, Record
from sparknet.reporting.report import Run
from sparknet.reporting.tensorboard import Curves
from sparknet.reporting.watch import Watch
from sparknet.training import Round


class Journal:
    """Keeps the records of a run, and writes ``metrics.jsonl`` and curves into ``output`` if there is one.

    A run that goes on after round ``done`` keeps the records up to there. Raises UsageError if ``output``
    cannot be written.
    """

    def __init__(
        self, output: Path | None, *, tensorboard: Path | None = None, synthetic: bool = False, done: int = 0
    ) -> None:
        self.output, self.synthetic = output, synthetic
        self.last: Round | None = None
        self._watch = Watch()
        self._log: Log | None = None
        self._curves: Curves | None = None
        self.records: list[Record] = []
        if output:
            make_folder(output)
            self.records = _before(output / "metrics.jsonl", done)
            self._log = Log(output / "metrics.jsonl", self.records)
            self._curves = Curves(tensorboard or output / "tensorboard", done=done)
        elapsed = self.records[-1].elapsed_seconds if self.records else 0.0
        self._started = time.monotonic() - elapsed

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._log:
            self._log.close()
        if self._curves:
            self._curves.close()

    def take(self, done: Round) -> Record:
        """Keep a round; the record of it, which is on disk by then."""
        elapsed = time.monotonic() - self._started
        notes = self._watch.notes(done)
        record = Record.of(done, elapsed_seconds=elapsed, synthetic=self.synthetic, notes=notes)
        if self._log:
            self._log.write(record)
        if self._curves:
            self._curves.take(record)
        self.records.append(record)
        progress.write(self.records)
        if record.loss is not None:
            self.last = done  # its weights stay where they are, which may be with the workers
        return record

    def leave(self, title: str, settings: Mapping[str, str], save: Callable[[Path], None]) -> Run:
        """Write report and model (by ``save``) into ``output``. Raises TrainingError without rounds."""
        run = Run(title=title, settings=settings, records=self.records)
        if self.output:
            save(self.output)
            report.write(self.output, run)
        return run


def make_folder(folder: Path) -> None:
    """Raises UsageError if there can be no such folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {folder} cannot be made: {error.strerror}") from error


def _before(file: Path, done: int) -> list[Record]:
    """The records of the rounds up to ``done``, where they are still there."""
    if not done or not file.exists():
        return []
    return [record for record in metrics.read(file) if record.round <= done]
