"""pycaffe's ``NCCL``, which a script asks for before it trains on several GPUs: this package has none.

Several workers are trained by ``sparknet.training`` instead, by averaging.
"""

from __future__ import annotations

from typing import Any

from sparknet.errors import UsageError


def has_nccl() -> bool:
    """Whether ``NCCL`` can be used: no."""
    return False


class NCCL:
    """Refuses, and says what to use."""

    def __init__(self, *_: Any) -> None:
        raise UsageError(
            "NCCL is not part of this package: train several replicas with sparknet.training, "
            "which averages their weights"
        )

    @staticmethod
    def new_uid() -> bytes:
        """Refuses as well."""
        raise UsageError("NCCL is not part of this package: see has_nccl()")
