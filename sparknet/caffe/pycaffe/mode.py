"""Where nets that are made from now on compute, with which random numbers, and in how many processes."""

from __future__ import annotations

import warnings

import torch

_device = torch.device("cpu")
_index = 0
_solver_count, _solver_rank = 1, 0


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


def solver_count() -> int:
    """How many solvers a script says train together; each is an ordinary solver here."""
    return _solver_count


def set_solver_count(count: int) -> None:
    """Say how many solvers train together. Their averaging is the script's own, or ``sparknet``'s."""
    global _solver_count
    _solver_count = count


def solver_rank() -> int:
    """Which of the solvers this is, as the script has said."""
    return _solver_rank


def set_solver_rank(rank: int) -> None:
    """Say which of the solvers this is; 0, the root, tests and snapshots."""
    global _solver_rank
    _solver_rank = rank


def set_multiprocess(value: bool) -> None:
    """Say whether the solvers are processes: there is nothing to prepare for it here."""


def device() -> torch.device:
    """Where a net made now computes."""
    return _device
