"""Steps of DistributedDataParallel over links of their own (``links.py``), one process of it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist

from tests.bench.torch_distributor import Net

_WARM = 3
_PORT = 29_400
_FIRST = "10.9.0.2"  # the first worker's address (``links.py``)


@dataclass(frozen=True, kw_only=True)
class Ddp:
    """Process ``rank`` of ``world``; it measures for ``seconds``."""

    rank: int
    world: int
    batch_size: int
    seconds: float

    def run(self, device: str, pipe: int) -> None:
        """Train through the network ``device``; the first writes the seconds of each step, a line of JSON."""
        torch.set_num_threads(1)
        os.environ["GLOO_SOCKET_IFNAME"] = device
        dist.init_process_group(
            "gloo", init_method=f"tcp://{_FIRST}:{_PORT}", rank=self.rank, world_size=self.world
        )
        steps = self._steps()
        if self.rank == 0:
            os.write(pipe, (json.dumps(steps) + "\n").encode())

    def _steps(self) -> list[float]:
        net = Net(lr=0.001)
        images = torch.randn(self.batch_size, 3, 32, 32)
        labels = torch.randint(10, (self.batch_size,))
        took = list[float]()
        # the same number in every process: whoever stopped earlier would leave the others waiting
        for _ in range(_WARM + max(3, int(self.seconds))):
            began = time.perf_counter()
            net.step(images, labels)
            took.append(time.perf_counter() - began)
        return took[_WARM:]
