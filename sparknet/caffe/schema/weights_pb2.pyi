from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Shape(_message.Message):
    __slots__ = ("dim",)
    DIM_FIELD_NUMBER: _ClassVar[int]
    dim: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, dim: _Optional[_Iterable[int]] = ...) -> None: ...

class Blob(_message.Message):
    __slots__ = ("shape", "data", "diff", "double_data", "double_diff", "num", "channels", "height", "width")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DIFF_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_DATA_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_DIFF_FIELD_NUMBER: _ClassVar[int]
    NUM_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    shape: Shape
    data: bytes
    diff: bytes
    double_data: bytes
    double_diff: bytes
    num: int
    channels: int
    height: int
    width: int
    def __init__(self, shape: _Optional[_Union[Shape, _Mapping[str, object]]] = ..., data: _Optional[bytes] = ..., diff: _Optional[bytes] = ..., double_data: _Optional[bytes] = ..., double_diff: _Optional[bytes] = ..., num: _Optional[int] = ..., channels: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...

class Layer(_message.Message):
    __slots__ = ("name", "blobs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    name: str
    blobs: _containers.RepeatedCompositeFieldContainer[Blob]
    def __init__(self, name: _Optional[str] = ..., blobs: _Optional[_Iterable[_Union[Blob, _Mapping[str, object]]]] = ...) -> None: ...

class V1Layer(_message.Message):
    __slots__ = ("name", "blobs", "layer")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    name: str
    blobs: _containers.RepeatedCompositeFieldContainer[Blob]
    layer: V0Layer
    def __init__(self, name: _Optional[str] = ..., blobs: _Optional[_Iterable[_Union[Blob, _Mapping[str, object]]]] = ..., layer: _Optional[_Union[V0Layer, _Mapping[str, object]]] = ...) -> None: ...

class V0Layer(_message.Message):
    __slots__ = ("name", "blobs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    name: str
    blobs: _containers.RepeatedCompositeFieldContainer[Blob]
    def __init__(self, name: _Optional[str] = ..., blobs: _Optional[_Iterable[_Union[Blob, _Mapping[str, object]]]] = ...) -> None: ...

class Net(_message.Message):
    __slots__ = ("layer", "layers")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    layer: _containers.RepeatedCompositeFieldContainer[Layer]
    layers: _containers.RepeatedCompositeFieldContainer[V1Layer]
    def __init__(self, layer: _Optional[_Iterable[_Union[Layer, _Mapping[str, object]]]] = ..., layers: _Optional[_Iterable[_Union[V1Layer, _Mapping[str, object]]]] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("history",)
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    history: _containers.RepeatedCompositeFieldContainer[Blob]
    def __init__(self, history: _Optional[_Iterable[_Union[Blob, _Mapping[str, object]]]] = ...) -> None: ...
