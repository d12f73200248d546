"""Which layers run backward, and to which of their bottoms: decided once, when a net is built.

Source: ``Net::Init`` of BVLC Caffe, whose rules these are: a gradient is computed where there is something
to learn below and a loss above; ``propagate_down: false`` stops it; ``force_backward`` computes all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparknet.caffe.layer import Layer


@dataclass
class Flow:
    """For one layer: whether it runs backward, and its bottoms and parameters that get a gradient."""

    runs: bool
    bottoms: list[bool]
    parameters: list[bool]


def plan(
    layers: Sequence[Layer],
    bottoms: Sequence[Sequence[str]],
    tops: Sequence[Sequence[str]],
    losses: Sequence[Sequence[float]],
    *,
    force: bool,
) -> list[Flow]:
    """The flows of ``layers``, which read and write blobs of these names; in-place layers repeat theirs."""
    flows = _from_below(layers, bottoms, tops)
    _from_above(flows, bottoms, tops, losses)
    if force:
        for layer, flow in zip(layers, flows, strict=True):
            _force(layer, flow)
    return flows


def _from_below(
    layers: Sequence[Layer], bottoms: Sequence[Sequence[str]], tops: Sequence[Sequence[str]]
) -> list[Flow]:
    """A layer is needed if it, or a layer below, has something to learn."""
    needed: dict[str, bool] = {}
    flows = []
    for layer, reads, writes in zip(layers, bottoms, tops, strict=True):
        asked = list(layer.param.propagate_down)
        if len(asked) not in (0, len(reads)):
            raise layer.error(f"propagate_down is given {len(asked)} times for {len(reads)} bottoms")
        parameters = [blob.lr_mult != 0 for blob in layer.blobs]
        runs = any(parameters) or any(needed[blob] for blob in reads)
        flows.append(Flow(runs, asked or [needed[blob] for blob in reads], parameters))
        for blob in writes:
            # an in-place layer that learns nothing leaves the blob as needed as it was
            needed[blob] = runs or (blob in reads and needed[blob])
    return flows


def _from_above(
    flows: list[Flow],
    bottoms: Sequence[Sequence[str]],
    tops: Sequence[Sequence[str]],
    losses: Sequence[Sequence[float]],
) -> None:
    """A layer is not needed if no loss lies above it, or if no layer above wants its gradient."""
    under_loss: set[str] = set()
    unwanted: set[str] = set()
    for flow, reads, writes, weights in reversed(list(zip(flows, bottoms, tops, losses, strict=True))):
        contributes = any(weights) or any(blob in under_loss for blob in writes)
        skipped = all(blob in unwanted for blob in writes)
        if not contributes or (flow.runs and skipped):
            flow.runs = False
            flow.bottoms = [False] * len(reads)
        for i, blob in enumerate(reads):
            if contributes:
                under_loss.add(blob)
            if not flow.bottoms[i]:
                unwanted.add(blob)


def _force(layer: Layer, flow: Flow) -> None:
    flow.runs = True
    flow.bottoms = [want or i not in layer.index_bottoms for i, want in enumerate(flow.bottoms)]
    flow.parameters = [True] * len(flow.parameters)
