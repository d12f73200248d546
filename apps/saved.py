"""Where a run begins, and what it saves on its way: ``--checkpoint``, ``--resume`` and their like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import click

from apps.options import Options
from sparknet.checkpoint import Checkpoint, Checkpoints, resumed
from sparknet.errors import UsageError
from sparknet.outer import Outer
from sparknet.training import Round, Workers


@dataclass(frozen=True, kw_only=True)
class Saved:
    """``latest`` is what the run goes on from, if anything; ``checkpoints`` where it saves, if anywhere."""

    checkpoints: Checkpoints | None = None
    latest: Checkpoint | None = None

    @classmethod
    def of(cls, options: Options) -> Self:
        """Raises UsageError where another run's checkpoints would be lost, or no round is left to do."""
        if options.checkpoint is None:
            return cls()
        checkpoints = Checkpoints(
            options.checkpoint,
            every=options.checkpoint_every,
            keep=options.checkpoint_keep,
            patience=options.checkpoint_patience,
        )
        latest = checkpoints.latest()
        if latest and not options.resume:
            raise UsageError(
                f"{options.checkpoint} holds a run that has come to round {latest.round}: add --resume to go "
                "on from there, or give another --checkpoint"
            )
        if latest and latest.round >= options.rounds:
            raise UsageError(f"{latest.round} rounds are done already: ask for more with --rounds")
        return cls(checkpoints=checkpoints, latest=latest)

    @property
    def done(self) -> int:
        """The rounds that have been run before."""
        return self.latest.round if self.latest else 0

    def resume(self, workers: Workers, outer: Outer, count: int) -> dict[str, Any]:
        """Put the workers, ``count`` of them, where the run was; returns arguments for ``train``."""
        if self.latest and self.checkpoints:
            click.echo(f"going on after round {self.done}, from {self.checkpoints.folder}")
            before = len(self.latest.workers)
            if before != count:
                click.echo(
                    f"there were {before} workers, now there are {count}: the training set is divided anew, "
                    "and a worker that is new has the mean momentum of the others"
                )
        return resumed(self.latest, workers, outer)

    def after(self, done: Round, workers: Workers, outer: Outer) -> None:
        """Save a checkpoint if one is due."""
        if self.checkpoints:
            self.checkpoints.after(done, workers, outer)
