"""What a solver logs every ``display`` iterations, in Caffe's words."""

from __future__ import annotations

import logging
import time

from sparknet.caffe.net import Net
from sparknet.caffe.solver.scores import scores_of

log = logging.getLogger("caffe")


class Display:
    """Remembers when it last logged, for the iterations per second since then."""

    def __init__(self, display: int) -> None:
        self.display = display
        self._then, self._before = time.perf_counter(), 0

    def log(self, iteration: int, loss: float, net: Net) -> None:
        """Log the speed, the ``loss`` and the outputs of ``net``."""
        now = time.perf_counter()
        seconds = now - self._then
        speed = f"{(iteration - self._before) / seconds:g} iter/s, {seconds:g}s/{self.display} iters"
        self._then, self._before = now, iteration
        log.info("Iteration %d (%s), loss = %g", iteration, speed, loss)
        outputs = {name: net.blobs[name].data for name in net.outputs}
        for number, score in enumerate(scores_of(net, outputs)):
            log.info("    Train net output #%d: %s", number, score)
