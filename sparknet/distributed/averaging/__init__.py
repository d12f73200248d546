"""Ways to average the weights: in the driver (star), or among the workers on hosts or GPUs (ring)."""

from typing import Literal, get_args

from sparknet.errors import UsageError

Exchange = Literal["auto", "star", "ring"]
"""The values of the ``exchange`` options; auto chooses by the size of the weights."""

COPY_EVERY = 20
"""Rounds of a ring after which the driver fetches the weights, unless told otherwise: a transfer in twenty
rounds, and no more rounds than these are lost with all workers at once."""


def check_exchange(exchange: str, copy_every: int) -> None:
    """Raise UsageError for an exchange there is not, or copies of a ring where there is none."""
    if exchange not in get_args(Exchange):
        raise UsageError(f"exchange is {exchange!r}: {', '.join(get_args(Exchange))}")
    if exchange == "star" and copy_every != COPY_EVERY:
        raise UsageError("--copy-every is for a ring: with --exchange star the driver has the weights anyway")
