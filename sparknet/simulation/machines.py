"""What is known of the machines, the network and the net before anything is simulated."""

from __future__ import annotations

from dataclasses import dataclass

from sparknet.errors import UsageError

FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Rates are bytes a second, each way; times are seconds.

    ``parameters`` of the net, a step of which takes ``step_seconds`` for ``batch_size`` images. ``bandwidth``
    of a worker's link, ``driver_bandwidth`` of the driver's, as large unless it is given; ``latency`` from
    any machine to another, one way. ``jitter`` is the deviation of a round's step time, as a share of it.
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

    @property
    def vector_bytes(self) -> int:
        return FLOAT_BYTES * self.parameters

    @property
    def driver_link(self) -> float:
        """What goes through the driver in a second, each way: its link or its processor."""
        return min(self.driver_bandwidth or self.bandwidth, self.processing)
