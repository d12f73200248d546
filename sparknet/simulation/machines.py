"""What is known of the machines, the network and the net before anything is simulated."""

from __future__ import annotations

from dataclasses import dataclass

from sparknet.errors import UsageError

FLOAT_BYTES = 4

PAYLOAD = 1448 / 1500
"""Of what a link carries: TCP and IP take 52 bytes of each packet of 1500 (RFC 9293, RFC 7323)."""

KEEPS_WINDOW = {"cubic": False, "reno": False, "bbr": True}
"""By algorithm of congestion control: whether a pause leaves TCP's window as it was."""


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Rates are bytes a second, each way; times are seconds.

    ``parameters`` of the net, a step of which takes ``step_seconds`` for ``batch_size`` images. ``bandwidth``
    of a worker's link, ``driver_bandwidth`` of the driver's, as large unless it is given. ``latency`` from
    any worker to another, one way, ``driver_latency`` from and to the driver, the same unless it is given;
    ``congestion`` is the algorithm by which TCP finds out how fast it may send: cubic (Linux's own default),
    reno or bbr. ``jitter`` is the deviation of a round's step time, as a share of it.
    Of each worker's machine ``reclaims`` come in an hour, and another is there ``replacement_seconds`` later.
    ``processing`` is how many bytes of weights the driver's processor can check and pass each way,
    ``merging`` how many it can average, ``handling`` its seconds for a request whatever its size, and
    ``ring_processing`` how many bytes a worker of a ring can average and pass.
    """

    parameters: int
    step_seconds: float
    batch_size: int
    bandwidth: float
    driver_bandwidth: float = 0.0
    latency: float = 0.0
    driver_latency: float | None = None
    congestion: str = "cubic"
    jitter: float = 0.05
    reclaims: float = 0.0
    replacement_seconds: float = 120.0
    processing: float = 1.2e9
    merging: float = 4e9
    handling: float = 150e-6
    ring_processing: float = 1.2e9

    def __post_init__(self) -> None:
        positive = ("parameters", "step_seconds", "batch_size", "bandwidth")
        for name in positive:
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be positive")
        for name in ("driver_bandwidth", "latency", "jitter", "reclaims", "replacement_seconds"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}: it must not be negative")
        if self.driver_latency is not None and not self.driver_latency >= 0:
            raise UsageError(f"driver_latency is {self.driver_latency}: it must not be negative")
        if self.congestion not in KEEPS_WINDOW:
            raise UsageError(f"the congestion control is {self.congestion!r}: {', '.join(KEEPS_WINDOW)}")

    @property
    def vector_bytes(self) -> int:
        return FLOAT_BYTES * self.parameters

    @property
    def link(self) -> float:
        """Bytes of frames that a worker's link carries in a second, each way."""
        return PAYLOAD * self.bandwidth

    @property
    def driver_link(self) -> float:
        """What goes through the driver in a second, each way: its link or its processor."""
        return min(PAYLOAD * (self.driver_bandwidth or self.bandwidth), self.processing)

    @property
    def to_driver(self) -> float:
        """Seconds from a worker to the driver, and back."""
        return self.latency if self.driver_latency is None else self.driver_latency

    @property
    def keeps_window(self) -> bool:
        """Whether TCP goes on after a pause as fast as before it."""
        return KEEPS_WINDOW[self.congestion]
