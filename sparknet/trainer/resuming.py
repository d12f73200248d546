"""Where a run begins, and what it saves on its way."""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
from dataclasses import dataclass, field
from typing import Any, Self

from sparknet.checkpoint import Checkpoint, Checkpoints, resumed
from sparknet.errors import Interrupted, UsageError
from sparknet.notice import Notice
from sparknet.outer import Outer
from sparknet.replica import Replica
from sparknet.training import Round, Workers

log = logging.getLogger(__name__)

VARIABLE, SECONDS_VARIABLE = "SPARKNET_CHECKPOINT", "SPARKNET_CHECKPOINT_SECONDS"
#: Between two checkpoints of a run that has named no place for them, unless the environment says otherwise.
AUTOMATIC_SECONDS = 600.0
_numbers = itertools.count(1)


def automatic() -> Checkpoints | None:
    """Where a run is saved that names no place: below ``SPARKNET_CHECKPOINT``, which a cluster with a bucket
    sets for each job; each run of the process in a folder of its own, by their order.

    None without that variable, and in a thread: the order of runs side by side differs each time. The end is
    not saved, so that a job that is run again goes through each of its runs to its end.
    """
    place = os.environ.get(VARIABLE)
    if not place or threading.current_thread() is not threading.main_thread():
        return None
    folder = f"{place.rstrip('/')}/run-{next(_numbers)}"
    return Checkpoints(folder, every=None, seconds=_seconds(), at_end=False, patience=math.inf)


def _seconds() -> float:
    said = os.environ.get(SECONDS_VARIABLE) or AUTOMATIC_SECONDS
    try:
        return float(said)
    except ValueError:
        raise UsageError(f"{SECONDS_VARIABLE}={said} is no number of seconds") from None


@dataclass(frozen=True, kw_only=True)
class Saved:
    """``latest`` is what the run goes on from, if anything; ``checkpoints`` where it saves, if anywhere.
    ``notice`` is that of the driver's machine."""

    checkpoints: Checkpoints | None = None
    latest: Checkpoint | None = None
    notice: Notice = field(default_factory=Notice.of_environment)

    @classmethod
    def of(
        cls, checkpoints: Checkpoints | None, *, resume: bool, rounds: int | None, algorithm: str = ""
    ) -> Self:
        """Raises UsageError where another run's checkpoints would be lost, or no round is left to do, and for
        a run of another ``algorithm`` (as far as that is known), whose state means something else."""
        if checkpoints is None:
            return cls()
        checkpoints.algorithm = algorithm
        latest = checkpoints.latest()
        if latest and not resume:
            raise UsageError(
                f"{checkpoints.folder} holds a run that has come to round {latest.round}: add --resume to go "
                "on from there (resume=True), or give another --checkpoint"
            )
        if latest and latest.algorithm and algorithm and latest.algorithm != algorithm:
            raise UsageError(
                f"{checkpoints.folder} holds a run of --algorithm {latest.algorithm}, not {algorithm}: go on "
                "with that, or begin another run from its weights (--weights) with another --checkpoint"
            )
        if latest and rounds is not None and latest.round >= rounds:
            raise UsageError(f"{latest.round} rounds are done already: ask for more with --rounds")
        return cls(checkpoints=checkpoints, latest=latest)

    @property
    def done(self) -> int:
        """The rounds that have been run before."""
        return self.latest.round if self.latest else 0

    def check(self, replica: Replica) -> None:
        """Raise UsageError unless ``replica`` can go on from there."""
        if self.latest is None or self.checkpoints is None:
            return
        sizes = {
            "net": (self.latest.weights.size, replica.weights.numel(), "weights"),
            "solver": (self._history_size, replica.history().numel(), "numbers of memory"),
        }
        for what, (there, here, unit) in sizes.items():
            if there not in (None, here):
                raise UsageError(
                    f"{self.checkpoints.folder} holds a run of another {what}, with {there:,} {unit} where "
                    f"this one has {here:,}: go on with that {what}, or give another --checkpoint"
                )

    @property
    def _history_size(self) -> int | None:
        """Numbers that a worker's solver remembers, where that was saved."""
        states = self.latest.workers.values() if self.latest else ()
        return next((state.history.size for state in states if state.history is not None), None)

    def resume(self, workers: Workers, outer: Outer, count: int) -> dict[str, Any]:
        """Put the workers, ``count`` of them, where the run was; returns arguments for ``train``."""
        if self.latest and self.checkpoints:
            log.info("going on after round %d, from %s", self.done, self.checkpoints.folder)
            before = len(self.latest.workers)
            if before != count:
                log.info(
                    "there were %d workers, now there are %d: the training set is divided anew, and a worker "
                    "that is new has the mean momentum of the others",
                    before,
                    count,
                )
        return resumed(self.latest, workers, outer)

    def after(self, done: Round, workers: Workers, outer: Outer) -> None:
        """Save a checkpoint if one is due.

        Raises Interrupted, once it is saved, if the cluster ends before the run does.
        """
        ends = self.notice.ends and done.number < done.rounds
        saved = bool(self.checkpoints and self.checkpoints.after(done, workers, outer, due=ends))
        if ends and done.drained:
            raise Interrupted(self._how_to_go_on(done, saved=saved))

    def _how_to_go_on(self, done: Round, *, saved: bool) -> str:
        when = f" at {self.notice.time}" if self.notice.time else ""
        if self.checkpoints is None:
            rest = "nothing was saved to go on from, for want of a --checkpoint"
        elif saved:
            by_whom = "--resume" if self.checkpoints.at_end else "sparknet-ec2 resubmit"
            rest = f"it is saved in {self.checkpoints.folder}, and {by_whom} goes on from there"
        else:
            rest = f"it could not be saved in {self.checkpoints.folder}"
        return f"the cluster ends{when}: the run ended after round {done.number} of {done.rounds}; {rest}"
