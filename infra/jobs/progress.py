"""Progress: how far the jobs that run are, as their drivers note it after each round.

The trainer writes a small file, ``progress.json`` in the job's folder, where ``SPARKNET_PROGRESS`` says
(sparknet/reporting/progress.py); a program that trains nothing has none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from shlex import quote
from typing import Any

from infra.jobs.link import JOBS
from infra.node import bootstrap
from infra.node.host import Host

FILE = "progress.json"
VARIABLE = "SPARKNET_PROGRESS"


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    """A job that runs, after ``round`` of its ``rounds`` (0: none is over yet). Moments are ISO 8601."""

    id: str
    started: str
    round: int = 0
    rounds: int = 0
    loss: float | None = None
    accuracy: float | None = None  # 0 to 1, of the last test
    images_per_second: float | None = None
    ends: str = ""  # when it would end at the pace of its last rounds


def of_running(host: Host) -> tuple[RunningJob, ...]:
    """The jobs that run on the master ``host``; none where it has no word of them."""
    script, folder = host.root / bootstrap.ON_NODE / "job/progress.sh", host.root / JOBS
    told = host.run(f"bash {quote(str(script))} {quote(str(folder))}", timeout_seconds=60, check=False)
    rows = (line.split("\t", 2) for line in told.stdout.splitlines())
    return tuple(_job(*row) for row in rows if len(row) == 3)


def _job(identity: str, started: str, text: str) -> RunningJob:
    try:
        known = json.loads(text)
        return RunningJob(
            id=identity,
            started=started,
            round=int(known["round"]),
            rounds=int(known["rounds"]),
            loss=known["loss"],
            accuracy=known["accuracy"],
            images_per_second=known["images_per_second"],
            ends=_ends(known),
        )
    except (ValueError, KeyError, TypeError):  # nothing yet
        return RunningJob(id=identity, started=started)


def _ends(known: dict[str, Any]) -> str:
    seconds = known["seconds_left"]
    told = datetime.fromisoformat(known["at"])
    return "" if seconds is None else (told + timedelta(seconds=seconds)).isoformat(timespec="seconds")
