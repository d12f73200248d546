"""Ways to average the weights: in the driver (star), or among the workers on hosts or GPUs (ring)."""

from typing import Literal

Exchange = Literal["auto", "star", "ring"]
"""The values of the ``exchange`` options; auto chooses by the size of the weights."""
