"""The base of layers written in Python (``type: "Python"``), as ``caffe.Layer``.

    class Double(caffe.Layer):
        def setup(self, bottom, top): pass
        def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)
        def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data
        def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 2 * top[0].diff

A net calls it by ``python_param { module: "file" layer: "Double" }``; the module's folder is on PYTHONPATH.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparknet.caffe.layers import TYPES
from sparknet.caffe.pycaffe.blob import Blob, BlobVec
from sparknet.caffe.schema.caffe_pb2 import LayerParameter

Blobs = Sequence[Blob]


class Layer:
    """What a layer in Python derives from.

    ``param_str`` is the string of the prototxt, ``phase`` is TRAIN or TEST, ``blobs`` are the layer's own to
    learn: ``self.blobs.add_blob(3, 4)`` in ``setup`` makes one of zeros, whose values may be set there.
    """

    type = "Python"

    def __init__(self, layer_param: LayerParameter) -> None:
        self.layer_param = layer_param
        self.name = layer_param.name
        self.param_str = self.param_str_ = layer_param.python_param.param_str
        self.phase = int(layer_param.phase)
        self.blobs = BlobVec()

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """Called once, before the first ``reshape``."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Called before every forward pass, to shape the tops."""

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Fill ``top[i].data``."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Fill ``bottom[i].diff`` where ``propagate_down[i]``, and add to ``self.blobs[i].diff``."""


def layer_type_list() -> list[str]:
    """The names that ``type`` of a layer in a prototxt can have, sorted."""
    return sorted(TYPES)
