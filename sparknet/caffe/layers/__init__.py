"""The layer types: a table from the ``type`` of prototxt to a class, one file per family.

A further type is a class added to ``TYPES``, or ``type: "Python"`` in the prototxt.
"""

from __future__ import annotations

from sparknet.caffe.layers import (
    activations,
    affine,
    combining,
    convolution,
    inner_product,
    losses,
    lrn,
    metrics,
    normalization,
    pooling,
    recurrent,
    shaping,
    softmax,
    source,
    spp,
)
from sparknet.caffe.layers.layer import Layer

__all__ = ["TYPES", "Layer"]

_CLASSES: tuple[type[Layer], ...] = (
    activations.AbsVal,
    activations.BNLL,
    activations.Clip,
    activations.Dropout,
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
)

TYPES: dict[str, type[Layer]] = {layer.type: layer for layer in _CLASSES}
