"""The speed-ups in SparkNet's paper beside those that ``sparknet plan`` forecasts for its cluster.

arXiv 1511.06051: EC2 machines of four GRID GPUs, weights through the driver, 1 Gbit/s, tau 50. Its speed-ups
count seconds to an accuracy: of AlexNet to 45 %, one GPU a machine, against Caffe on one GPU (section 4.1);
of GoogLeNet to 40 %, four GPUs a machine, against Caffe on four. The plan forecasts images a second. What the
first lack of the second is what an image of K workers teaches less than one of a single worker, which no
forecast of rounds can know.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparknet.simulation.forecast import Way, forecast
from sparknet.simulation.machines import Machines

TAU = 50
ALEXNET = Machines(parameters=60_965_224, step_seconds=2.0, batch_size=256, bandwidth=125e6, jitter=0)
"""C of about 2 s is the paper's."""

GOOGLENET = Machines(parameters=13_378_280, step_seconds=0.8, batch_size=128, bandwidth=125e6, jitter=0)
"""With both auxiliary classifiers. The paper does not say C: a K80 takes 0.9 s for 256 images of AlexNet and
0.36 s for 32 of GoogLeNet (arXiv 1609.06870, table I), and the paper's GPU 2 s for the first."""


@dataclass(frozen=True, kw_only=True)
class SpeedUp:
    """Of ``workers`` machines, as the paper has it."""

    net: str
    machines: Machines
    workers: int
    paper: float

    @property
    def goodput(self) -> float:
        return forecast(self.machines, self.workers, Way(tau=TAU)).goodput

    @property
    def plan(self) -> float:
        """Of images a second."""
        return self.workers * self.goodput


SPEED_UPS = (
    SpeedUp(net="AlexNet", machines=ALEXNET, workers=3, paper=2.4),
    SpeedUp(net="AlexNet", machines=ALEXNET, workers=5, paper=3.8),
    SpeedUp(net="AlexNet", machines=ALEXNET, workers=10, paper=4.4),
    SpeedUp(net="GoogLeNet", machines=GOOGLENET, workers=3, paper=2.7),
    SpeedUp(net="GoogLeNet", machines=GOOGLENET, workers=6, paper=3.2),
)


def table() -> str:
    """A line for each of the paper's speed-ups."""
    lines = [f"{'speed-up at tau 50':<20}{'K':>4}{'of images/s':>14}{'paper':>8}{'paper / plan':>14}"]
    lines += [
        f"{each.net:<20}{each.workers:>4}{each.plan:>14.2f}{each.paper:>8.1f}{each.paper / each.plan:>14.2f}"
        for each in SPEED_UPS
    ]
    return "\n".join(lines)
