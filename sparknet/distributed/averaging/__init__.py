"""Ways to average the weights: in the driver (star), or among the workers on hosts or GPUs (ring)."""

from typing import Literal

Exchange = Literal["auto", "star", "ring"]
"""The values of the ``exchange`` options; auto chooses by the size of the weights."""

COPY_EVERY = 20
"""Rounds of a ring after which the driver fetches the weights, unless told otherwise: a transfer in twenty
rounds, and no more rounds than these are lost with all workers at once."""
