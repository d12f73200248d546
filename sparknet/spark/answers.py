"""What the frames of an answer say. Raises ExchangeError where they cannot be read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sparknet.spark.exchange import ExchangeError, Frame, Note
from sparknet.spark.members import Fetched, Member, Reduced
from sparknet.training import Report, Scores, WorkerState


def report(member: Member, frames: Sequence[Frame]) -> Report:
    """A report with weights."""
    if frames[0].size != member.buffer.nbytes:
        raise ExchangeError(f"{member} sent {frames[0].size:,} of the {member.buffer.nbytes:,} bytes due")
    return _report(frames[0].note)


def bare_report(_member: Member, frames: Sequence[Frame]) -> Report:
    """A report without weights."""
    return _report(frames[0].note)


def state(member: Member, frames: Sequence[Frame]) -> WorkerState:
    note = frames[0].note
    try:
        place = int(note["iteration"]), int(note["position"])
    except (KeyError, TypeError, ValueError) as wrong:
        raise ExchangeError(f"a state that cannot be read: {wrong}") from wrong
    return WorkerState(iteration=place[0], position=place[1], history=member.history.copy())


def scores(_member: Member, frames: Sequence[Frame]) -> Scores:
    note = frames[0].note
    try:
        return Scores(records=int(note["records"]), sums=dict(note["sums"]))
    except (KeyError, TypeError, ValueError) as wrong:
        raise ExchangeError(f"scores that cannot be read: {wrong}") from wrong


def reduced(_member: Member, frames: Sequence[Frame]) -> Reduced:
    note = frames[0].note
    if not note.get("done"):
        return Reduced(failure=str(note.get("reason")))
    return Reduced(sent=int(note.get("sent", 0)), moved=float(note.get("moved", math.nan)))


def fetched(_member: Member, frames: Sequence[Frame]) -> Fetched:
    return Fetched(size=frames[0].size)


def _report(note: Note) -> Report:
    try:
        return Report(**note)
    except TypeError as wrong:
        raise ExchangeError(f"a report that cannot be read: {wrong}") from wrong
