"""Ctrl-C, SIGTERM and SIGHUP as one exception, and sections of code that they must not interrupt.

with interrupts_raise():                # the command line, around a verb
    with interrupts_held():             # around a call that makes something: its answer must not be lost
        ...                             # an interrupt in here is raised at its end
    undone_on_failure(work, undo, report)
    # undo should be finished but may be given up: the first interrupt in it is reported, the next one raised

A signal's handler runs between any two instructions, those at the beginning of an ``except`` and of an
``__exit__`` among them. So once a first interrupt has been raised within ``undone_on_failure``, no other one
but within ``undo``, and ``undo`` is begun again where the first one has cut its beginning short.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import TypeVar

from infra.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
READING_SECONDS = 2.0  # until then a further Ctrl-C was typed before the answer to the first could be read

T = TypeVar("T")

_held = 0
_pending: str | None = None
_undoable = 0  # how many calls of undone_on_failure there are on the stack
_is_raised = False  # in one of them, since interrupts_raise
_unanswered: str | None = None  # what came since then, and before its undo had begun
_answers: list[_Answer] = []


class _Answer:
    """Reports the first interrupt, and knows when that was."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._reported_at: float | None = None
        self._names: SimpleQueue[str] = SimpleQueue()  # its put may be called by a signal's handler
        # not in the handler: it may have interrupted a write to the stream that the report is written to,
        # and Python's buffered streams refuse to be entered twice
        self._thread = threading.Thread(target=self._answer, name="interrupts", daemon=True)
        self._thread.start()

    def takes(self, name: str) -> bool:
        """Whether the interrupt ends here: the first one, and those that came with it."""
        now = time.monotonic()
        if self._reported_at is None:
            self._reported_at = now
            self._names.put(name)
            return True
        return now - self._reported_at < READING_SECONDS

    def end(self) -> None:
        self._names.put("")
        self._thread.join()

    def _answer(self) -> None:
        while name := self._names.get():
            self._report(name)


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Inside, each of ``SIGNALS`` raises Interrupted in the main thread."""
    global _is_raised, _pending, _unanswered
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _is_raised, _pending, _unanswered = False, None, None


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Inside, an interrupt waits; it is raised at the end. Only the main thread is ever interrupted."""
    global _held, _pending
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _held += 1
    try:
        yield
    finally:
        _held -= 1
    if _held == 0 and _pending is not None:
        name, _pending = _pending, None
        _raise(name)


def undone_on_failure(
    work: Callable[[], T], undo: Callable[[BaseException], None], report: Callable[[str], None]
) -> T:
    """``work``; whatever it raises, an interrupt too, is raised after ``undo`` has been called with it.

    The first interrupt in ``undo`` is only reported: ``report`` gets its name, in a thread of its own. One
    that comes later than ``READING_SECONDS`` after it is raised, and ends ``undo``.
    """
    global _undoable
    has_begun = False

    def begin(error: BaseException) -> None:
        nonlocal has_begun
        with _interrupts_answered(report):
            has_begun = True
            undo(error)

    _undoable += 1
    try:
        try:
            try:
                return work()
            except BaseException as error:
                begin(error)
                raise
        except BaseException as error:
            # the one interrupt that is raised may have come before the undo could begin
            if not has_begun:
                begin(error)
            raise
    finally:
        _undoable -= 1


@contextmanager
def _interrupts_answered(report: Callable[[str], None]) -> Iterator[None]:
    global _unanswered
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    answer = _Answer(report)
    _answers.append(answer)
    try:
        if _unanswered:
            name, _unanswered = _unanswered, None
            answer.takes(name)
        yield
    finally:
        _answers.remove(answer)
        answer.end()


def _on_signal(number: int, _frame: FrameType | None) -> None:
    global _pending
    name = signal.Signals(number).name
    if _answers and _answers[-1].takes(name):
        return
    if _held:
        _pending = name
        return
    _raise(name)


def _raise(name: str) -> None:
    """Raise Interrupted, unless one is on its way to an undo already, or from there to the command's end."""
    global _is_raised, _unanswered
    if not _answers:
        if _is_raised:
            _unanswered = name
            return
        _is_raised = bool(_undoable)
    raise Interrupted(f"stopped by {name}")
