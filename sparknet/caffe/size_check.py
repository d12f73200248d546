"""Whether arrays fit into the memory of the machine, checked before any is allocated.

Linux allocates more memory than there is, and ends the process that uses it; a digit too many in a prototxt
is to give an error message instead.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

import torch

from sparknet.weights import Shape

_BYTES = 4  # of a float32


def installed(device: torch.device) -> int:
    """Bytes of memory of the machine, or of the GPU."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def excess(shapes: Iterable[Shape], device: torch.device, copies: int = 1) -> str:
    """By what float32 arrays of these shapes are too large for ``device``, in words; "" if they are not."""
    needed = copies * _BYTES * sum(math.prod(shape) for shape in shapes)
    there = installed(device)
    return f"{_gib(needed)} GiB, and there are {_gib(there)} GiB in all" if needed > there else ""


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f}" if count < 2**60 else f"{count / 2**30:.1e}"
