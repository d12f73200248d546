"""Old nets and solvers made new, exactly as Caffe does it on reading them.

    V0 layers (2013)  ->  V1 layers (2014)  ->  layers
    transform fields inside data_param      ->  transform_param
    input, input_shape, input_dim           ->  an Input layer
    BatchNorm with three param              ->  lr_mult 0, decay_mult 0
    solver_type (a number)                  ->  type (a name)

Source: ``src/caffe/util/upgrade_proto.cpp`` of BVLC Caffe; checked against its output (oracle/upgrade).
"""

from __future__ import annotations

from sparknet.caffe.schema.caffe_pb2 import (
    DataParameter,
    ImageDataParameter,
    LayerParameter,
    NetParameter,
    SolverParameter,
    TransformationParameter,
    V1LayerParameter,
    WindowDataParameter,
)
from sparknet.caffe.schema.upgrade_v0 import upgrade_v0
from sparknet.errors import ModelError

V1_TYPES = {
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "ELTWISE": "Eltwise",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "SLICE": "Slice",
    "TANH": "TanH",
    "WINDOW_DATA": "WindowData",
    "THRESHOLD": "Threshold",
}
# fields that V1 and current layers have under the same name and meaning
_SAME_LISTS = ("bottom", "top", "include", "exclude", "blobs", "loss_weight")
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")


def upgrade_net(net: NetParameter) -> NetParameter:
    """Bring ``net`` to the current form, in place, and return it.

    Raises ModelError for a net that mixes ``layer`` and ``layers`` or contradicts itself in legacy fields.
    """
    if any(layer.HasField("layer") for layer in net.layers):
        upgrade_v0(net)
    _move_transforms(net)
    if net.layers:
        _upgrade_v1(net)
    if net.input or net.input_shape or net.input_dim:
        _upgrade_inputs(net)
    _upgrade_batch_norm(net)
    return net


def upgrade_solver(solver: SolverParameter) -> SolverParameter:
    """Turn the legacy ``solver_type`` into ``type``, in place, and return ``solver``."""
    if not solver.HasField("solver_type"):
        return solver
    if solver.HasField("type"):
        raise ModelError("the solver has both type and solver_type; keep type, the name")
    names = {"NESTEROV": "Nesterov", "ADAGRAD": "AdaGrad", "RMSPROP": "RMSProp", "ADADELTA": "AdaDelta"}
    name = SolverParameter.SolverType.Name(solver.solver_type)
    solver.type = names.get(name, "Adam" if name == "ADAM" else "SGD")
    solver.ClearField("solver_type")
    return solver


def _move_transforms(net: NetParameter) -> None:
    """Preprocessing once stood in the parameters of each data layer."""
    layers: list[V1LayerParameter | LayerParameter] = [*net.layers, *net.layer]
    for layer in layers:
        for source in ("data_param", "image_data_param", "window_data_param"):
            if layer.HasField(source):
                _move_transform(getattr(layer, source), layer)


def _move_transform(
    source: DataParameter | ImageDataParameter | WindowDataParameter, layer: V1LayerParameter | LayerParameter
) -> None:
    transform: TransformationParameter = layer.transform_param
    for field in _TRANSFORM_FIELDS:
        if source.HasField(field):
            setattr(transform, field, getattr(source, field))
            source.ClearField(field)


def _upgrade_v1(net: NetParameter) -> None:
    if net.layer:
        raise ModelError(f'net "{net.name}" has both layer and layers (the older form): keep one of the two')
    for old in net.layers:
        _copy_v1_layer(old, net.layer.add())
    net.ClearField("layers")


def _copy_v1_layer(old: V1LayerParameter, new: LayerParameter) -> None:
    if old.HasField("name"):
        new.name = old.name
    if old.HasField("type") and old.type != V1LayerParameter.NONE:
        new.type = V1_TYPES[V1LayerParameter.LayerType.Name(old.type)]
    for field in _SAME_LISTS:
        getattr(new, field).extend(getattr(old, field))
    _copy_v1_params(old, new)
    for descriptor, value in old.ListFields():
        if descriptor.name.endswith("_param"):
            getattr(new, descriptor.name).CopyFrom(value)


def _copy_v1_params(old: V1LayerParameter, new: LayerParameter) -> None:
    """Names, share modes and multipliers were lists beside each other; now each blob has its ``param``."""
    count = max(len(old.param), len(old.blob_share_mode), len(old.blobs_lr), len(old.weight_decay))
    for i in range(count):
        spec = new.param.add()
        if i < len(old.param):
            spec.name = old.param[i]
        if i < len(old.blob_share_mode):
            spec.share_mode = old.blob_share_mode[i]  # type: ignore[assignment]
        if i < len(old.blobs_lr):
            spec.lr_mult = old.blobs_lr[i]
        if i < len(old.weight_decay):
            spec.decay_mult = old.weight_decay[i]


def _upgrade_inputs(net: NetParameter) -> None:
    """One Input layer, called input, before all others."""
    if net.input_shape and net.input_dim:
        raise ModelError(f'net "{net.name}" gives its inputs by input_shape and by input_dim: keep one')
    if net.input_dim and len(net.input_dim) != 4 * len(net.input):
        raise ModelError(
            f'net "{net.name}" has {len(net.input)} input and {len(net.input_dim)} input_dim: '
            "it takes 4 for each"
        )
    layer = LayerParameter(name="input", type="Input", top=net.input)
    layer.input_param.shape.extend(net.input_shape)
    for start in range(0, len(net.input_dim), 4):
        layer.input_param.shape.add(dim=net.input_dim[start : start + 4])
    net.layer.insert(0, layer)
    for field in ("input", "input_shape", "input_dim"):
        net.ClearField(field)


def _upgrade_batch_norm(net: NetParameter) -> None:
    """The statistics are blobs, but no solver may touch them."""
    for layer in net.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            for spec in layer.param:
                spec.lr_mult = 0.0
                spec.decay_mult = 0.0
