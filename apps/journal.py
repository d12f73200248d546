"""What a run leaves behind: its records as they come, and model and report when it ends, however it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import click
import numpy as np

from apps.options import Options
from sparknet.caffe.files import weights as weight_files
from sparknet.caffe_replica import CaffeModel
from sparknet.errors import TrainingError, UsageError
from sparknet.reporting import metrics, report
from sparknet.reporting.metrics import Log, Record
from sparknet.reporting.report import Run
from sparknet.reporting.tensorboard import Curves
from sparknet.reporting.watch import Watch
from sparknet.spark import SparkWorkers
from sparknet.training import Round


class Journal:
    """Writes ``metrics.jsonl`` and curves round by round; the rest of ``options.output`` when it is left.

    ``model`` is the net whose weights are written, ``settings`` the table of the report. A run that goes on
    after round ``done`` keeps the records up to there. Raises UsageError if ``output`` cannot be written.
    """

    def __init__(
        self,
        options: Options,
        model: CaffeModel,
        settings: Mapping[str, str],
        *,
        synthetic: bool,
        done: int = 0,
    ) -> None:
        self.output, self.model, self.settings, self.synthetic = options.output, model, settings, synthetic
        self._last: Round | None = None
        self._watch = Watch()
        self._records = _before(self.output / "metrics.jsonl", done)
        self._log = Log(self.output / "metrics.jsonl", self._records)
        self._curves = Curves(options.tensorboard or self.output / "tensorboard", done=done)
        elapsed = self._records[-1].elapsed_seconds if self._records else 0.0
        self._started = time.monotonic() - elapsed

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._log.close()
        self._curves.close()
        if self._last is not None:
            self._leave(self._last)

    def take(self, done: Round) -> Record:
        """Keep a round; the record of it, which is on disk by then."""
        elapsed = time.monotonic() - self._started
        notes = self._watch.notes(done)
        record = Record.of(done, elapsed_seconds=elapsed, synthetic=self.synthetic, notes=notes)
        self._log.write(record)
        self._curves.take(record)
        self._records.append(record)
        if record.loss is not None:
            self._last = done  # its weights stay where they are, which may be with the workers
        return record

    def _leave(self, last: Round) -> None:
        try:
            self._save_model(last)
        except TrainingError as error:
            click.echo(f"there is no model.caffemodel of round {last.number}: {error}", err=True)
        run = Run(title=self.model.net.name, settings=self.settings, records=self._records)
        report.write(self.output, run)
        click.echo(run.headline)
        click.echo(
            "model.caffemodel, metrics.jsonl, report.html, curve.png and tensorboard are in "
            f"{self.output.resolve()}"
        )

    def _save_model(self, last: Round) -> None:
        replica = CaffeModel(net=self.model.net, solver=self.model.solver, device="cpu")()
        np.copyto(replica.weights.numpy(), last.weights)
        weight_files.save(replica.net, self.output / "model.caffemodel")


@contextmanager
def keep_traces(workers: SparkWorkers, output: Path) -> Iterator[None]:
    """Write the traces that the workers leave when they are closed into ``output``/profile."""
    try:
        yield
    finally:
        for name, trace in workers.traces.items():
            make_folder(output / "profile")
            (output / "profile" / f"{name}.json.gz").write_bytes(trace)


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
