"""Nets written in Python, in pycaffe's manner: layers are calls, blobs are their results.

    from sparknet.caffe import NetSpec, layers as L, params as P

    n = NetSpec()
    n.data, n.label = L.DummyData(shape=[dict(dim=[64, 1, 28, 28]), dict(dim=[64])], ntop=2)
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20, weight_filler=dict(type="xavier"))
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.ip1 = L.InnerProduct(n.pool1, num_output=10)
    n.loss = L.SoftmaxWithLoss(n.ip1, n.label)
    print(n.to_proto())

Blobs that no attribute names are called by their layer's type and a number: ``Convolution1``,
``Convolution2``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from sparknet.caffe.schema import caffe_pb2
from sparknet.caffe.schema.caffe_pb2 import LayerParameter, NetParameter

Layers = dict["Function", LayerParameter]
Names = dict["Top | Function", str]


class Top:
    """One output blob of a layer: the ``n``-th of ``fn``."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn, self.n = fn, n

    def to_proto(self) -> NetParameter:
        """The net of all layers that this blob needs."""
        return to_proto(self)

    def _to_proto(self, layers: Layers, names: Names, autonames: Counter[str]) -> None:
        self.fn._to_proto(layers, names, autonames)


class Function:
    """A layer to be: its type, the blobs it reads, and its parameters.

    ``ntop`` says how many blobs it makes (1), ``in_place`` that they are those it reads. Raises TypeError
    for an input that is no blob.
    """

    def __init__(self, type_name: str, inputs: tuple[Top, ...], params: Mapping[str, Any]) -> None:
        for index, given in enumerate(inputs):
            if not isinstance(given, Top):
                raise TypeError(f"{type_name} input {index} is not a Top (type is {type(given)})")
        self.type_name = type_name
        self.inputs = inputs
        self.params = {name: value for name, value in params.items() if name not in ("ntop", "in_place")}
        self.ntop: int = params.get("ntop", 1)
        self.in_place: bool = params.get("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def _to_proto(self, layers: Layers, names: Names, autonames: Counter[str]) -> None:
        if self in layers:
            return
        for given in self.inputs:
            given._to_proto(layers, names, autonames)
        layer = LayerParameter(type=self.type_name)
        layer.bottom.extend(layers[given.fn].top[given.n] for given in self.inputs)
        if self.in_place:
            layer.top.extend(layer.bottom)
        else:
            layer.top.extend(self._top_name(top, names, autonames) for top in self.tops)
        layer.name = self._name(names, autonames)
        for name, value in self.params.items():
            _assign_to_layer(layer, name, value)
        layers[self] = layer

    def _name(self, names: Names, autonames: Counter[str]) -> str:
        if self not in names:
            names[self] = (
                self._top_name(self.tops[0], names, autonames) if self.ntop else self._numbered(autonames)
            )
        return names[self]

    def _top_name(self, top: Top, names: Names, autonames: Counter[str]) -> str:
        if top not in names:
            names[top] = self._numbered(autonames)
        return names[top]

    def _numbered(self, autonames: Counter[str]) -> str:
        autonames[self.type_name] += 1
        return f"{self.type_name}{autonames[self.type_name]}"


class NetSpec:
    """Blobs by name, as attributes or items.

    A layer without blobs (``ntop=0``) can be kept in the same way.
    """

    tops: dict[str, Top | Function]

    def __init__(self) -> None:
        super().__setattr__("tops", {})

    def __setattr__(self, name: str, value: Top | Function) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        try:
            return self.tops[name]
        except KeyError:
            raise AttributeError(name) from None

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    def __setitem__(self, name: str, value: Top | Function) -> None:
        self.tops[name] = value

    def __getitem__(self, name: str) -> Any:
        return self.tops[name]

    def __delitem__(self, name: str) -> None:
        del self.tops[name]

    def to_proto(self) -> NetParameter:
        """The net of all layers that the kept blobs need, under their names."""
        return _net(self.tops.values(), {top: name for name, top in self.tops.items()})


class LayerFunctions:
    """``L``.

    Every attribute makes a layer of that type, and returns its blob, or a tuple of ``ntop`` blobs.
    """

    def __getattr__(self, type_name: str) -> Callable[..., Any]:
        return layer_function(type_name)


class EnumsOf:
    """``P.Pooling``: the enum values of ``PoolingParameter``, as ``P.Pooling.MAX``."""

    def __init__(self, message: str) -> None:
        self._message = message

    def __getattr__(self, value: str) -> Any:
        return getattr(getattr(caffe_pb2, f"{self._message}Parameter"), value)


class Params:
    """``P``: the constants of layer parameters by layer type."""

    def __getattr__(self, name: str) -> EnumsOf:
        if name.startswith("__"):
            raise AttributeError(name)
        return EnumsOf(name)


def layer_function(type_name: str) -> Callable[..., Any]:
    """The function that makes layers of ``type_name`` out of blobs and parameters."""
    if type_name.startswith("__"):
        raise AttributeError(type_name)

    def make(*inputs: Top, **parameters: Any) -> Top | tuple[Top, ...] | Function:
        function = Function(type_name, inputs, parameters)
        if function.ntop == 0:
            return function
        return function.tops[0] if function.ntop == 1 else function.tops

    return make


def to_proto(*tops: Top) -> NetParameter:
    """The net of all layers that ``tops`` need."""
    return _net(tops, {})


def assign_proto(proto: Message, name: str, value: Any) -> None:
    """Set a field from Python values: dicts become messages, lists repeated fields.

    A single value for a repeated field is a list of one. Raises AttributeError for a field that is not there.
    """
    field = getattr(proto, name)
    if hasattr(field, "extend"):
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, Mapping):
                _assign_all(field.add(), item)
            else:
                field.append(item)
    elif isinstance(value, Mapping):
        field.SetInParent()
        _assign_all(field, value)
    else:
        setattr(proto, name, value)


def _assign_all(proto: Message, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        assign_proto(proto, name, value)


def _assign_to_layer(layer: LayerParameter, name: str, value: Any) -> None:
    """A name that ends in ``param`` is the layer's own.

    Others are the type's if it has them, or the layer's.
    """
    own = _PARAM_FIELDS.get(layer.type)
    if own and not name.endswith("param") and name in getattr(layer, own).DESCRIPTOR.fields_by_name:
        assign_proto(getattr(layer, own), name, value)
    else:
        assign_proto(layer, name, value)


def _net(tops: Any, names: Names) -> NetParameter:
    layers: Layers = {}
    autonames: Counter[str] = Counter()
    for top in tops:
        top._to_proto(layers, names, autonames)
    net = NetParameter()
    net.layer.extend(layers.values())
    return net


# "Convolution" -> "convolution_param": the message is called ConvolutionParameter
_PARAM_FIELDS = {
    field.message_type.name.removesuffix("Parameter"): field.name
    for field in LayerParameter.DESCRIPTOR.fields
    if field.name.endswith("_param") and field.message_type
} | {"Deconvolution": "convolution_param", "Im2col": "convolution_param"}

layers = LayerFunctions()
params = Params()
