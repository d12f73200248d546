"""What SIGINT and SIGHUP do to a running solver: stop it, snapshot it, or nothing.

    with SignalRequests(sigint=Action.STOP, sighup=Action.SNAPSHOT) as requests:
        solver.requested_action = requests
        solver.solve()

A signal only leaves a request; the solver asks for it between iterations and between test batches, so that
the weights are never caught half updated. Source: ``src/caffe/util/signal_handler.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

import signal
from enum import Enum
from types import FrameType, TracebackType
from typing import Any


class Action(Enum):
    """What a solver is asked to do before it goes on."""

    NONE = "none"
    STOP = "stop"
    SNAPSHOT = "snapshot"


class SignalRequests:
    """Catches the two signals while it is open; calling it gives the action asked for since the last call.

    SIGINT is answered before SIGHUP. Only the main thread can catch signals: elsewhere opening raises
    ValueError.
    """

    def __init__(self, *, sigint: Action = Action.STOP, sighup: Action = Action.SNAPSHOT) -> None:
        self.effects = {signal.SIGINT: sigint, signal.SIGHUP: sighup}
        self._caught: set[signal.Signals] = set()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> SignalRequests:
        for number in self.effects:
            self._previous[number] = signal.signal(number, self._catch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __call__(self) -> Action:
        for number, action in self.effects.items():
            if number in self._caught:
                self._caught.discard(number)
                return action
        return Action.NONE

    def _catch(self, number: int, _: FrameType | None) -> None:
        self._caught.add(signal.Signals(number))
