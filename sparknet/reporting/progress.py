"""Progress: how far a run is, in a small file that others read while it goes on.

Its path is in ``SPARKNET_PROGRESS`` of the environment; without that nothing is written. ``sparknet-ec2
status`` shows what is in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from sparknet.reporting.metrics import Record

VARIABLE = "SPARKNET_PROGRESS"
PACE_ROUNDS = 20  # the last ones tell how long the next take


def write(records: Sequence[Record]) -> None:
    """Put the state after the last of ``records`` in the place of what was written before.

    A disk that is full ends no training.
    """
    place = os.environ.get(VARIABLE)
    if not place or not records:
        return
    file = Path(place)
    new = file.with_name(f".{file.name}.new")
    with suppress(OSError):
        new.write_text(json.dumps(_state(records), allow_nan=False), encoding="utf-8")
        new.replace(file)


def seconds_left(records: Sequence[Record]) -> float | None:
    """Until the last round, if rounds go on taking as long as the last ones did; None after a single one."""
    recent = records[-PACE_ROUNDS - 1 :]
    if len(recent) < 2:
        return None
    pace = (recent[-1].elapsed_seconds - recent[0].elapsed_seconds) / (len(recent) - 1)
    return max(0.0, pace * (records[-1].rounds - records[-1].round))


def _state(records: Sequence[Record]) -> dict[str, object]:
    last = records[-1]
    tested = (record.accuracy for record in reversed(records) if record.accuracy is not None)
    return {
        "round": last.round,
        "rounds": last.rounds,
        "loss": last.loss,
        "accuracy": next(tested, None),
        "images_per_second": last.images_per_second,
        "seconds_left": seconds_left(records),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
