"""Nets of 2013 (V0): every setting of every layer in one message, padding as layers of its own.

Source: ``UpgradeV0Net`` and ``UpgradeV0PaddingLayers`` of BVLC Caffe's ``src/caffe/util/upgrade_proto.cpp``.
"""

from __future__ import annotations

import warnings
from typing import Any

from sparknet.caffe.schema.caffe_pb2 import NetParameter, V0LayerParameter, V1LayerParameter
from sparknet.caffe.schema.unused import UnusedSetting
from sparknet.errors import ModelError

V0_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

# V0 field -> {V0 type: (message of the V1 layer, field in it)}
_MOVES: dict[str, dict[str, tuple[str, str]]] = {
    "num_output": {
        "conv": ("convolution_param", "num_output"),
        "innerproduct": ("inner_product_param", "num_output"),
    },
    "biasterm": {
        "conv": ("convolution_param", "bias_term"),
        "innerproduct": ("inner_product_param", "bias_term"),
    },
    "weight_filler": {
        "conv": ("convolution_param", "weight_filler"),
        "innerproduct": ("inner_product_param", "weight_filler"),
    },
    "bias_filler": {
        "conv": ("convolution_param", "bias_filler"),
        "innerproduct": ("inner_product_param", "bias_filler"),
    },
    "pad": {"conv": ("convolution_param", "pad"), "pool": ("pooling_param", "pad")},
    "kernelsize": {"conv": ("convolution_param", "kernel_size"), "pool": ("pooling_param", "kernel_size")},
    "group": {"conv": ("convolution_param", "group")},
    "stride": {"conv": ("convolution_param", "stride"), "pool": ("pooling_param", "stride")},
    "pool": {"pool": ("pooling_param", "pool")},
    "dropout_ratio": {"dropout": ("dropout_param", "dropout_ratio")},
    "local_size": {"lrn": ("lrn_param", "local_size")},
    "alpha": {"lrn": ("lrn_param", "alpha")},
    "beta": {"lrn": ("lrn_param", "beta")},
    "k": {"lrn": ("lrn_param", "k")},
    "source": {
        "data": ("data_param", "source"),
        "hdf5_data": ("hdf5_data_param", "source"),
        "images": ("image_data_param", "source"),
        "window_data": ("window_data_param", "source"),
        "infogain_loss": ("infogain_loss_param", "source"),
    },
    "batchsize": {
        "data": ("data_param", "batch_size"),
        "hdf5_data": ("hdf5_data_param", "batch_size"),
        "images": ("image_data_param", "batch_size"),
        "window_data": ("window_data_param", "batch_size"),
    },
    "rand_skip": {"data": ("data_param", "rand_skip"), "images": ("image_data_param", "rand_skip")},
    "shuffle_images": {"images": ("image_data_param", "shuffle")},
    "new_height": {"images": ("image_data_param", "new_height")},
    "new_width": {"images": ("image_data_param", "new_width")},
    "concat_dim": {"concat": ("concat_param", "concat_dim")},
    "det_fg_threshold": {"window_data": ("window_data_param", "fg_threshold")},
    "det_bg_threshold": {"window_data": ("window_data_param", "bg_threshold")},
    "det_fg_fraction": {"window_data": ("window_data_param", "fg_fraction")},
    "det_context_pad": {"window_data": ("window_data_param", "context_pad")},
    "det_crop_mode": {"window_data": ("window_data_param", "crop_mode")},
    "hdf5_output_param": {"hdf5_output": ("hdf5_output_param", "")},
}
# preprocessing goes straight to transform_param, whatever the layer
_TRANSFORMS = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}
_LISTS = ("blobs", "blobs_lr", "weight_decay")


def upgrade_v0(net: NetParameter) -> None:
    """Turn V0 layers into V1 layers, in place; warns of settings (UnusedSetting) that a layer never had."""
    _fold_padding_layers(net)
    layers = [_upgraded(layer) for layer in net.layers]
    net.ClearField("layers")
    net.layers.extend(layers)


def _fold_padding_layers(net: NetParameter) -> None:
    """A padding layer becomes the ``pad`` of the convolution or pooling after it."""
    writer = dict.fromkeys(net.input, "")
    paddings: dict[str, V1LayerParameter] = {}
    kept: list[V1LayerParameter] = []
    for layer in net.layers:
        for i, blob in enumerate(layer.bottom):
            if blob not in writer:
                raise ModelError(
                    f'layer "{layer.layer.name}": bottom "{blob}" is the top of no layer before it'
                )
            if writer[blob] == "padding":
                _take_padding(layer, i, paddings[blob])
        for blob in layer.top:
            writer[blob] = layer.layer.type
            if layer.layer.type == "padding":
                paddings[blob] = V1LayerParameter.FromString(layer.SerializeToString())
        if layer.layer.type != "padding":
            kept.append(V1LayerParameter.FromString(layer.SerializeToString()))
    net.ClearField("layers")
    net.layers.extend(kept)


def _take_padding(layer: V1LayerParameter, bottom: int, padding: V1LayerParameter) -> None:
    if layer.layer.type not in ("conv", "pool"):
        raise ModelError(
            f'layer "{layer.layer.name}" of type {layer.layer.type} cannot follow the padding layer '
            f'"{padding.layer.name}": only conv and pool can'
        )
    if len(layer.bottom) != 1 or len(padding.bottom) != 1 or len(padding.top) != 1:
        raise ModelError(
            f'layer "{layer.layer.name}" and the padding layer "{padding.layer.name}" before it '
            "have one bottom each, and the padding one top"
        )
    layer.layer.pad = padding.layer.pad
    layer.bottom[bottom] = padding.bottom[0]


def _upgraded(old: V1LayerParameter) -> V1LayerParameter:
    if not old.HasField("layer"):
        return old
    inner = old.layer
    new = V1LayerParameter(bottom=old.bottom, top=old.top)
    for descriptor, value in inner.ListFields():
        _move(inner, descriptor.name, value, new)
    return new


def _move(inner: V0LayerParameter, field: str, value: Any, new: V1LayerParameter) -> None:
    if field == "name":
        new.name = value
    elif field == "type":
        new.type = _type(inner)  # type: ignore[assignment]  # the stubs take the enum, not its number
    elif field in _LISTS:
        getattr(new, field).extend(value)
    elif field in _TRANSFORMS:
        setattr(new.transform_param, _TRANSFORMS[field], value)
    elif inner.type in _MOVES.get(field, {}):
        message, name = _MOVES[field][inner.type]
        _assign(getattr(new, message), name, value)
    else:
        warnings.warn(
            f'V0 layer "{inner.name}" of type {inner.type} has no setting {field}: left out, as in Caffe',
            UnusedSetting,
            stacklevel=2,
        )


def _type(inner: V0LayerParameter) -> int:
    if inner.type not in V0_TYPES:
        raise ModelError(f'V0 layer "{inner.name}": unknown type "{inner.type}"')
    return V1LayerParameter.LayerType.Value(V0_TYPES[inner.type])


def _assign(message: Any, field: str, value: Any) -> None:
    if not field:
        message.CopyFrom(value)
    elif message.DESCRIPTOR.fields_by_name[field].is_repeated:
        getattr(message, field).append(value)
    elif hasattr(value, "DESCRIPTOR"):
        getattr(message, field).CopyFrom(value)
    else:
        setattr(message, field, value)
