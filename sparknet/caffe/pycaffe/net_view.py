"""What a net is made of, as pycaffe names it: blobs, parameters, layers, and who reads and writes what."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from sparknet.caffe.layer import Layer as CoreLayer
from sparknet.caffe.layers.python import Python
from sparknet.caffe.layers.source import DummyData
from sparknet.caffe.net import Net as CoreNet
from sparknet.caffe.pycaffe.blob import Blob, BlobVec, HeldArrays

Callback = Callable[[int], object]


class LayerView:
    """A layer of a net: its ``name``, its ``type`` and its ``blobs``."""

    def __init__(self, layer: CoreLayer, held: HeldArrays) -> None:
        self.name, self.type = layer.name, layer.type
        self.blobs = BlobVec(Blob(blob, held) for blob in layer.blobs)

    def __repr__(self) -> str:
        return f'{self.type}("{self.name}")'


class NetView:
    """The facts about a net, and its arrays."""

    def _wrap(self, core: CoreNet) -> None:
        self._core = core
        learned = [blob for layer in core.layers for blob in layer.blobs]
        fed = [top for node in core.nodes if node.is_fed for top in node.tops]
        self._held = HeldArrays(plain=[*learned, *fed], plain_diffs=learned)
        self._blobs = OrderedDict((name, Blob(blob, self._held)) for name, blob in core.blobs.items())
        self._params = OrderedDict(
            (name, BlobVec(Blob(blob, self._held) for blob in blobs)) for name, blobs in core.params.items()
        )
        self._before_forward: list[Callback] = []
        self._after_forward: list[Callback] = []
        self._before_backward: list[Callback] = []
        self._after_backward: list[Callback] = []
        for node in core.nodes:
            if isinstance(node.layer, DummyData):
                node.forward()  # constants are there before the first pass, to be overwritten
            elif isinstance(node.layer, Python):
                node.layer.attach_parameters()  # what its setup has made is the net's from now on
        self.layers: list[Any] = [
            node.layer.user if isinstance(node.layer, Python) else LayerView(node.layer, self._held)
            for node in core.nodes
        ]

    @property
    def name(self) -> str:
        return self._core.name

    @property
    def blobs(self) -> OrderedDict[str, Blob]:
        """The blobs between layers by name, input to output."""
        return self._blobs

    @property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """What each blob counts in the loss."""
        weights = {top.name: weight for node in self._core.nodes for top, weight in node.weighted_tops}
        return OrderedDict((name, weights.get(name, 0.0)) for name in self._core.blobs)

    @property
    def params(self) -> OrderedDict[str, BlobVec]:
        """The learned blobs by layer name."""
        return self._params

    @property
    def inputs(self) -> list[str]:
        """Names of the blobs of Input layers."""
        return list(self._core.input_names)

    @property
    def outputs(self) -> list[str]:
        """Names of the blobs that no layer reads."""
        return list(self._core.outputs)

    @property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """The blobs each layer writes, by its name."""
        return OrderedDict((n.layer.name, [blob.name for blob in n.tops]) for n in self._core.nodes)

    @property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """The blobs each layer reads, by its name."""
        return OrderedDict((n.layer.name, [blob.name for blob in n.bottoms]) for n in self._core.nodes)

    @property
    def layer_dict(self) -> OrderedDict[str, Any]:
        """The layers by name; a layer written in Python is the user's own object."""
        return OrderedDict(zip(self._layer_names, self.layers, strict=True))

    @property
    def _layer_names(self) -> list[str]:
        return self._core.layer_names

    @property
    def _blob_names(self) -> list[str]:
        return list(self._core.blobs)

    @property
    def _inputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.inputs]

    @property
    def _outputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.outputs]

    def _bottom_ids(self, layer: int) -> list[int]:
        return [self._blob_names.index(blob.name) for blob in self._core.nodes[layer].bottoms]

    def _top_ids(self, layer: int) -> list[int]:
        return [self._blob_names.index(blob.name) for blob in self._core.nodes[layer].tops]
