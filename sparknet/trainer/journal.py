"""What a run leaves behind: its records as they come, and model and report when it ends, however it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from sparknet.errors import UsageError
from sparknet.reporting import metrics, progress, report
from sparknet.reporting.address import Address
from sparknet.reporting.live import LivePage, Page
from sparknet.reporting.metrics import Log, Record
from sparknet.reporting.roster import Roster
from sparknet.reporting.run import Cluster, Run, versions
from sparknet.reporting.tensorboard import Curves
from sparknet.reporting.watch import Watch
from sparknet.training import Round

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"


class Journal:
    """Keeps the records of a run, and writes ``metrics.jsonl`` and curves into ``output`` if there is one.

    A run that goes on after round ``done`` keeps the records up to there. With a ``page`` it is shown while
    it trains. Raises UsageError if ``output`` cannot be written.
    """

    def __init__(
        self,
        output: Path | None,
        *,
        title: str = "",
        settings: Mapping[str, str] | None = None,
        tensorboard: Path | None = None,
        synthetic: bool = False,
        done: int = 0,
        page: Page | None = None,
        saved_at: str | Path | None = None,
    ) -> None:
        self.output, self.synthetic = output, synthetic
        self._title, self._settings = title, dict(settings or {})
        self._file = page.file if page else None
        self.last: Round | None = None
        self._watch = Watch()
        self._log: Log | None = None
        self._curves: Curves | None = None
        self._roster = Roster()
        address = Address.of(_place(saved_at or output), page.port if page else 0)
        self.records = _before(output, address.metrics, done)
        if output:
            make_folder(output)
            self._log = Log(output / METRICS, self.records)
            self._curves = Curves(tensorboard or output / "tensorboard", done=done)
        self._page = self._served(address) if page else None
        elapsed = self.records[-1].elapsed_seconds if self.records else 0.0
        self._started = time.monotonic() - elapsed

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._page:
            self._page.close(self._roster.rows, reason(error))
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
        self._roster.take(done, notes)
        if self._page:
            self._page.take(record, lambda: self._roster.rows)
        self.records.append(record)
        progress.write(self.records)
        if record.loss is not None:
            self.last = done  # its weights stay where they are, which may be with the workers
        return record

    def leave(self, save: Callable[[Path], None], failure: str = "") -> Run:
        """Write report and model (by ``save``) into ``output``. Raises TrainingError without rounds."""
        run = replace(self._run(), workers=self._roster.rows, failure=failure)
        run.require()
        if self.output:
            save(self.output)
            report.write(self.output, run)
        if self._file:
            report.write_page(self._file, run)
        return run

    def _served(self, address: Address) -> LivePage:
        """The live page, with what is known before the first round."""
        metrics = (self.output / METRICS).resolve() if self.output else None
        return LivePage(self._run(), address, tell=log.info, metrics=metrics)

    def _run(self) -> Run:
        return Run(
            title=self._title,
            settings=self._settings,
            records=self.records,
            versions=versions(),
            cluster=Cluster.from_environment(),
        )


def make_folder(folder: Path, option: str = "--output") -> None:
    """Raises UsageError naming the ``option`` if there can be no such folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {folder} cannot be made: {error.strerror}") from error


def _before(output: Path | None, elsewhere: Path | None, done: int) -> list[Record]:
    """The records of the rounds up to ``done``: those in ``output``, or, where an earlier driver of the run
    wrote into another folder, in that one's file ``elsewhere``."""
    files = (output / METRICS if output else None, elsewhere)
    file = next((one for one in files if one and one.exists()), None)
    if not done or file is None:
        return []
    return [record for record in metrics.read(file) if record.round <= done]


def _place(folder: str | Path | None) -> str | None:
    """A folder or URL, as whoever starts the run again names it from wherever."""
    if folder is None or "://" in str(folder):
        return None if folder is None else str(folder)
    return str(Path(folder).resolve())


def reason(error: BaseException | None) -> str:
    """Why a run has failed, for its page."""
    if error is None:
        return ""
    return str(error) or ("It was interrupted." if isinstance(error, KeyboardInterrupt) else repr(error))
