"""How long a frame may take: as long as its bytes flow, and not for ever.

A large vector takes minutes on a slow link, in which nothing is wrong; a link that is cut says nothing. So it
is not the frame that has a deadline but its next byte, and the whole of it only as its size allows.
"""

from __future__ import annotations

from collections.abc import Callable

from sparknet import clock


class Progress:
    """That of one frame. ``seconds`` may pass without a byte, and as many and ``total / rate`` in all;
    ``total`` and ``what`` is awaited become known as it arrives.

    ``doing`` says in an error what the other end did not do. ``moves`` is called when bytes have gone over.
    """

    def __init__(
        self,
        doing: str,
        what: str,
        *,
        seconds: float,
        rate: float,
        total: int = 0,
        moves: Callable[[], None] | None = None,
    ) -> None:
        self.doing, self.what, self.total, self._moves = doing, what, total, moves
        self._seconds, self._rate = seconds, rate
        self._done = 0
        self._began = self._last = clock.now()

    @property
    def until(self) -> float:
        """When it is too late, of ``clock.now``, unless a byte comes before."""
        return min(self._last + self._seconds, self._ends)

    def moved(self, count: int, *, seconds: float | None = None) -> None:
        """So many bytes more have gone over; from the first on there may be other ``seconds``."""
        self._last = clock.now()
        if seconds is not None and not self._done:
            self._seconds, self._began = seconds, self._last
        self._done += count
        if self._moves:
            self._moves()

    def paused(self, seconds: float) -> None:
        """Nothing was to go over in these."""
        self._last += seconds
        self._began += seconds

    def check(self) -> None:
        """Raises TimeoutError if it is too late."""
        now = clock.now()
        if now >= self._last + self._seconds:
            raise TimeoutError(f"{self.doing} for {self._seconds:g} s{self._place}")
        if now >= self._ends:
            raise TimeoutError(
                f"{self.doing.replace('nothing', 'too little')} in {now - self._began:.3g} s{self._place}: "
                f"less than {self._rate:,.0f} bytes a second"
            )

    @property
    def _ends(self) -> float:
        return self._began + self._seconds + self.total / self._rate

    @property
    def _place(self) -> str:
        if not self._done:
            return f", where {self.what} was due"
        return f", after {self._done:,} of the {self.total:,} bytes of {self.what}"
