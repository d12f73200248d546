"""The layer types: a table from the ``type`` of prototxt to a class, one file per family.

A further type is a class added to ``TYPES``, or ``type: "Python"`` in the prototxt.

As ``L``, pycaffe's name for this package, ``L.Convolution(...)`` writes a layer of that type: see
``net_spec``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparknet.caffe.layer import Layer
from sparknet.caffe.layers import (
    activations,
    affine,
    combining,
    convolution,
    database,
    dropout,
    hdf5,
    image_data,
    inner_product,
    losses,
    lrn,
    metrics,
    normalization,
    pooling,
    python,
    recurrent,
    shaping,
    softmax,
    source,
    spp,
    window_data,
)
from sparknet.caffe.net_spec import layer_function

__all__ = ["TYPES", "Layer"]

_CLASSES: tuple[type[Layer], ...] = (
    activations.AbsVal,
    activations.BNLL,
    activations.Clip,
    activations.ELU,
    activations.Exp,
    activations.Log,
    activations.Power,
    activations.PReLU,
    activations.ReLU,
    activations.Sigmoid,
    activations.Swish,
    activations.TanH,
    activations.Threshold,
    affine.Bias,
    affine.Scale,
    combining.Eltwise,
    combining.Reduction,
    convolution.Convolution,
    convolution.Deconvolution,
    convolution.Im2col,
    database.Data,
    dropout.Dropout,
    hdf5.HDF5Data,
    hdf5.HDF5Output,
    image_data.ImageData,
    inner_product.Embed,
    inner_product.InnerProduct,
    losses.ContrastiveLoss,
    losses.EuclideanLoss,
    losses.HingeLoss,
    losses.SigmoidCrossEntropyLoss,
    lrn.LRN,
    metrics.Accuracy,
    metrics.ArgMax,
    normalization.BatchNorm,
    normalization.MVN,
    pooling.Pooling,
    python.Python,
    recurrent.LSTM,
    recurrent.LSTMUnit,
    recurrent.RNN,
    shaping.BatchReindex,
    shaping.Concat,
    shaping.Crop,
    shaping.Filter,
    shaping.Flatten,
    shaping.Reshape,
    shaping.Silence,
    shaping.Slice,
    shaping.Split,
    shaping.Tile,
    softmax.InfogainLoss,
    softmax.MultinomialLogisticLoss,
    softmax.Softmax,
    softmax.SoftmaxWithLoss,
    source.DummyData,
    source.Input,
    source.MemoryData,
    source.Parameter,
    spp.SPP,
    window_data.WindowData,
)

TYPES: dict[str, type[Layer]] = {layer.type: layer for layer in _CLASSES}


def __getattr__(name: str) -> Callable[..., Any]:
    if name[:1].isupper():  # types are capitalised, modules are not
        return layer_function(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
