"""Overlapped averaging: the average of a round travels while the next round is computed.

    worker k:  round r ──> x_k ──> round r + 1, from x_k ──> y_k ──> z_k = y_k + (w - x_k) ──> round r + 2 ..
                            └─────> averaged: w ──────────────────────────┘

x_k is what was sent, y_k what has been made of it meanwhile, w what became of the average (the average
itself, or the outer step from it). The average is merged where the round in which it arrives ends, so that
what comes out does not depend on how fast the network was. The rule is the delay-corrected one: the progress
y_k - x_k is kept, only what was sent is replaced. For this rule and others see LOSCAR-SGD (arXiv
2605.20866); Streaming DiLoCo (arXiv 2501.18512) merges late averages too.

What holds, and is tested: workers that are all alike stay as they are; the mean of z is w plus the mean
progress, so nothing is counted twice and nothing is lost; one worker alone is serial training, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparknet.errors import UsageError
from sparknet.merge import Statistics
from sparknet.weights import Vector

# Numbers merged at a time: the intermediate result stays in a core's cache.
_BLOCK = 1 << 15


def check_fragments(fragments: int, overlap: bool) -> None:
    """Raise UsageError unless an average can travel in so many parts."""
    if fragments < 1:
        raise UsageError(f"fragments is {fragments}: an average travels in at least 1 part")
    if fragments > 1 and not overlap:
        raise UsageError(
            "--fragments spreads an average over the round that is computed while it travels, and without "
            "--overlap all workers wait for it: give both, or neither"
        )


def check_momentum(momentum: str | None, overlap: bool) -> None:
    """Raise UsageError unless workers' momentum can be treated so at an averaging."""
    if overlap and momentum == "average":
        raise UsageError(
            "--momentum average is for workers that wait for each other, which they do not with --overlap"
        )


def merge_late(vector: Vector, arrived: Vector, sent: Vector, statistics: Sequence[Statistics] = ()) -> None:
    """``vector += arrived - sent``, the difference first; all float32 (P,).

    ``sent`` is what the worker gave to the average, ``arrived`` what came of that, ``vector`` what the worker
    has made of ``sent`` meanwhile. Running variances that would fall below zero become zero.
    """
    difference = np.empty(min(_BLOCK, vector.size), np.float32)
    for begin in range(0, vector.size, _BLOCK):
        block = slice(begin, begin + _BLOCK)
        # sent - arrived, subtracted: the same numbers, and where nothing has changed -0.0 stays -0.0
        part = np.subtract(sent[block], arrived[block], out=difference[: sent[block].size])
        vector[block] -= part
    for statistic in statistics:
        variance = vector[statistic.variance]
        np.copyto(variance, 0.0, where=variance < 0)
