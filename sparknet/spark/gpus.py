"""On which GPU a worker computes, and where a group of workers averages: on their GPUs or on the hosts.

A worker says on which GPU it could average, or on none; the driver, which knows what all of them said, says
what the group does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from sparknet.spark.groups import nccl_is_here

Backend = Literal["gloo", "nccl"]


def averaging_gpu(device: torch.device, wire: str) -> str:
    """The GPU by which a worker with weights on ``device`` can average with NCCL; "" for none.

    NCCL brings float32: for another ``wire`` weights go through host memory.
    """
    if device.type != "cuda" or wire != "float32" or not nccl_is_here():
        return ""
    return str(torch.cuda.get_device_properties(device).uuid)


def choose_backend(gpus: Sequence[str]) -> Backend:
    """What a group averages with whose members named these GPUs.

    NCCL takes each GPU once. Workers that share one, or have none, average in host memory, and so do all the
    others of their group.
    """
    return "nccl" if all(gpus) and len(set(gpus)) == len(gpus) else "gloo"
