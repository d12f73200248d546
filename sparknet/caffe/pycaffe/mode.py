"""Where nets that are made from now on compute, and with which random numbers."""

from __future__ import annotations

import warnings

import torch

_device = torch.device("cpu")
_index = 0


def set_mode_cpu() -> None:
    """Compute on the CPU."""
    global _device
    _device = torch.device("cpu")


def set_mode_gpu() -> None:
    """Compute on the GPU of ``set_device``; where there is none, warn and compute on the CPU."""
    global _device
    if torch.cuda.is_available():
        _device = torch.device("cuda", _index)
    else:
        warnings.warn("there is no CUDA GPU here: nets compute on the CPU", stacklevel=2)


def set_device(index: int) -> None:
    """Use the GPU of this number when the mode is GPU."""
    global _index, _device
    _index = index
    if _device.type == "cuda":
        _device = torch.device("cuda", index)


def set_random_seed(seed: int) -> None:
    """Begin the random numbers of fillers, dropout and data anew."""
    torch.manual_seed(seed)


def device() -> torch.device:
    """Where a net made now computes."""
    return _device
