"""SparkNet's way to define nets: one function a layer, one net of all, run with named arrays.

    net = NetParam(
        "LeNet",
        RDDLayer("data", shape=[64, 1, 28, 28]),
        RDDLayer("label", shape=[64]),
        ConvolutionLayer("conv1", ["data"], kernel=(5, 5), num_output=20),
        PoolingLayer("pool1", ["conv1"], pooling=Pooling.Max, kernel=(2, 2), stride=(2, 2)),
        ConvolutionLayer("conv2", ["pool1"], kernel=(5, 5), num_output=50),
        PoolingLayer("pool2", ["conv2"], pooling=Pooling.Max, kernel=(2, 2), stride=(2, 2)),
        InnerProductLayer("ip1", ["pool2"], num_output=500),
        ReLULayer("relu1", ["ip1"]),
        InnerProductLayer("ip2", ["relu1"], num_output=10),
        SoftmaxWithLoss("loss", ["ip2", "label"]),
    )
    solver = CaffeSolver(load_solver_prototxt_with_net("lenet_solver.prototxt", net))
    loss = solver.step({"data": images, "label": labels})

The output of a layer has the layer's name. Weights are drawn by ``xavier``, biases begin at 0 and learn
twice as fast, as in the nets that come with Caffe. Source: the interface of SparkNet (arXiv 1511.06051,
section 2.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from sparknet.caffe.net_spec import assign_proto
from sparknet.caffe.schema import load_net, load_solver, replace_data_layers
from sparknet.caffe.schema.caffe_pb2 import LayerParameter, NetParameter, Phase, SolverParameter
from sparknet.caffe.sparknet_net import CaffeNet, CaffeSolver

__all__ = [
    "AccuracyLayer",
    "CaffeLayer",
    "CaffeNet",
    "CaffeSolver",
    "ConcatLayer",
    "ConvolutionLayer",
    "DropoutLayer",
    "Include",
    "InnerProductLayer",
    "LRNLayer",
    "NetParam",
    "Pooling",
    "PoolingLayer",
    "RDDLayer",
    "ReLULayer",
    "SigmoidLayer",
    "SoftmaxLayer",
    "SoftmaxWithLoss",
    "TanHLayer",
    "load_net_prototxt",
    "load_solver_prototxt",
    "load_solver_prototxt_with_net",
    "load_solver_with_net_prototxt",
    "replace_data_layers",
]

Pair = tuple[int, int]  # height, width


class Include(Enum):
    """The phase a layer is only in."""

    Train = "TRAIN"
    Test = "TEST"


class Pooling(Enum):
    """What a pooling layer makes of a window."""

    Max = "MAX"
    Ave = "AVE"


def NetParam(name: str, *layers: LayerParameter) -> NetParameter:  # noqa: N802
    """The net of these layers."""
    return NetParameter(name=name, layer=layers)


def CaffeLayer(  # noqa: N802
    type: str,
    name: str,
    bottoms: Iterable[str] = (),
    *,
    top: Iterable[str] | None = None,
    include: Include | None = None,
    **parameters: Any,
) -> LayerParameter:
    """Any layer; ``parameters`` are fields of its message: dicts for messages, lists for repeated ones.

    Raises AttributeError for a field that is not there.
    """
    layer = LayerParameter(name=name, type=type, bottom=bottoms, top=[name] if top is None else top)
    if include is not None:
        layer.include.add(phase=Phase.Value(include.value))
    for field, value in parameters.items():
        assign_proto(layer, field, value)
    return layer


def RDDLayer(name: str, shape: Sequence[int], include: Include | None = None) -> LayerParameter:  # noqa: N802
    """An input that is fed with records, batch size first; in one phase only if ``include`` says so."""
    return CaffeLayer("Input", name, include=include, input_param={"shape": {"dim": list(shape)}})


def ConvolutionLayer(  # noqa: N802
    name: str,
    bottoms: Iterable[str],
    kernel: Pair,
    num_output: int,
    *,
    stride: Pair = (1, 1),
    pad: Pair = (0, 0),
    group: int = 1,
    weight_filler: str = "xavier",
    bias_filler: str = "constant",
    lr_mult: Pair = (1, 2),
) -> LayerParameter:
    """``num_output`` filters of ``kernel`` height and width.

    The multipliers are those of weights and biases.
    """
    window = {"num_output": num_output, "group": group} if group != 1 else {"num_output": num_output}
    return CaffeLayer(
        "Convolution",
        name,
        bottoms,
        param=_rates(lr_mult),
        convolution_param={
            **window,
            **_both("kernel", kernel),
            **_both("stride", stride),
            **(_both("pad", pad) if any(pad) else {}),
            **_fillers(weight_filler, bias_filler),
        },
    )


def PoolingLayer(  # noqa: N802
    name: str,
    bottoms: Iterable[str],
    pooling: Pooling,
    kernel: Pair,
    stride: Pair,
    *,
    pad: Pair = (0, 0),
) -> LayerParameter:
    """The maximum or the mean of each window."""
    padding = _both("pad", pad) if any(pad) else {}
    sizes = {**_both("kernel", kernel), **_both("stride", stride), **padding}
    return CaffeLayer("Pooling", name, bottoms, pooling_param={"pool": pooling.value, **sizes})


def InnerProductLayer(  # noqa: N802
    name: str,
    bottoms: Iterable[str],
    num_output: int,
    *,
    weight_filler: str = "xavier",
    bias_filler: str = "constant",
    lr_mult: Pair = (1, 2),
) -> LayerParameter:
    """Every output sees every input."""
    settings = {"num_output": num_output, **_fillers(weight_filler, bias_filler)}
    return CaffeLayer("InnerProduct", name, bottoms, param=_rates(lr_mult), inner_product_param=settings)


def ReLULayer(name: str, bottoms: Iterable[str]) -> LayerParameter:  # noqa: N802
    """The positive part."""
    return CaffeLayer("ReLU", name, bottoms)


def SigmoidLayer(name: str, bottoms: Iterable[str]) -> LayerParameter:  # noqa: N802
    """The logistic function."""
    return CaffeLayer("Sigmoid", name, bottoms)


def TanHLayer(name: str, bottoms: Iterable[str]) -> LayerParameter:  # noqa: N802
    """The hyperbolic tangent."""
    return CaffeLayer("TanH", name, bottoms)


def DropoutLayer(name: str, bottoms: Iterable[str], ratio: float = 0.5) -> LayerParameter:  # noqa: N802
    """In training a share ``ratio`` of the inputs is set to 0."""
    return CaffeLayer("Dropout", name, bottoms, dropout_param={"dropout_ratio": ratio})


def LRNLayer(  # noqa: N802
    name: str, bottoms: Iterable[str], local_size: int = 5, alpha: float = 1.0, beta: float = 0.75
) -> LayerParameter:
    """Local response normalisation across ``local_size`` channels."""
    settings = {"local_size": local_size, "alpha": alpha, "beta": beta}
    return CaffeLayer("LRN", name, bottoms, lrn_param=settings)


def ConcatLayer(name: str, bottoms: Iterable[str], axis: int = 1) -> LayerParameter:  # noqa: N802
    """The inputs one after the other along ``axis``."""
    return CaffeLayer("Concat", name, bottoms, concat_param={"axis": axis})


def SoftmaxLayer(name: str, bottoms: Iterable[str]) -> LayerParameter:  # noqa: N802
    """Scores as probabilities."""
    return CaffeLayer("Softmax", name, bottoms)


def SoftmaxWithLoss(name: str, bottoms: Iterable[str]) -> LayerParameter:  # noqa: N802
    """The mean cross entropy of scores and labels, which is what training makes small."""
    return CaffeLayer("SoftmaxWithLoss", name, bottoms)


def AccuracyLayer(  # noqa: N802
    name: str, bottoms: Iterable[str], top_k: int = 1, include: Include | None = Include.Test
) -> LayerParameter:
    """The share of records whose label is among the ``top_k`` best scores."""
    return CaffeLayer("Accuracy", name, bottoms, include=include, accuracy_param={"top_k": top_k})


def load_net_prototxt(path: str | Path) -> NetParameter:
    """The net of a prototxt file, of any age. Raises SchemaError or ModelError."""
    return load_net(path)


def load_solver_prototxt(path: str | Path) -> SolverParameter:
    """The solver of a prototxt file. Raises SchemaError or ModelError."""
    return load_solver(path)


def load_solver_prototxt_with_net(
    path: str | Path, net: NetParameter, snapshot_prefix: str | None = None
) -> SolverParameter:
    """The solver of a file, set on ``net`` instead of the net it names.

    It snapshots only if given a prefix.
    """
    solver = load_solver(path)
    for field in ("net", "train_net", "train_net_param", "test_net", "test_net_param", "net_param"):
        solver.ClearField(field)
    solver.net_param.CopyFrom(net)
    if snapshot_prefix is None:
        solver.ClearField("snapshot")
        solver.ClearField("snapshot_prefix")
        solver.snapshot_after_train = False
    else:
        solver.snapshot_prefix = snapshot_prefix
    return solver


def load_solver_with_net_prototxt(
    path: str | Path, net_path: str | Path, snapshot_prefix: str | None = None
) -> SolverParameter:
    """The same, with the net of another file."""
    return load_solver_prototxt_with_net(path, load_net(net_path), snapshot_prefix)


def _both(name: str, pair: Pair) -> dict[str, int]:
    """One number where height and width agree, as one would write it."""
    if pair[0] == pair[1]:
        return {f"{name}_size" if name == "kernel" else name: pair[0]}
    return {f"{name}_h": pair[0], f"{name}_w": pair[1]}


def _fillers(weight: str, bias: str) -> dict[str, dict[str, str]]:
    return {"weight_filler": {"type": weight}, "bias_filler": {"type": bias}}


def _rates(lr_mult: Pair) -> list[dict[str, int]]:
    return [{"lr_mult": mult} for mult in lr_mult]
