"""The data layers of a net replaced by Input layers, so that the caller feeds the net."""

from __future__ import annotations

from sparknet.caffe.schema.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter, NetState, Phase
from sparknet.caffe.schema.states import is_included
from sparknet.errors import ModelError

DATA_TYPES = frozenset({"Data", "ImageData", "HDF5Data", "MemoryData", "WindowData", "DummyData", "Input"})


def replace_data_layers(
    net: NetParameter, train_batch: int, test_batch: int, channels: int, height: int, width: int
) -> NetParameter:
    """A copy of ``net`` that is fed images (N, C, H, W) and labels (N), both float32, by the caller.

    A layer without bottoms that reads or makes records is a data layer. The tops keep their names (``data``
    and ``label`` as a rule): the first is the images, the second the labels. A Python layer stays, since
    nothing says what it makes. Raises ModelError if there is no data layer, or one with further tops.
    """
    replaced = NetParameter()
    replaced.CopyFrom(net)
    replaced.ClearField("layer")
    for phase, batch in ((TRAIN, train_batch), (TEST, test_batch)):
        names = _tops_read(net, phase)
        if names is not None:
            replaced.layer.append(_input(phase, names, batch, (channels, height, width)))
    if not replaced.layer:
        raise ModelError(f'net "{net.name}" has no data layer to replace')
    replaced.layer.extend(layer for layer in net.layer if not _is_data(layer))
    return replaced


def _is_data(layer: LayerParameter) -> bool:
    return layer.type in DATA_TYPES and not layer.bottom


def _tops_read(net: NetParameter, phase: Phase) -> list[str] | None:
    """The tops of the phase's data layers, images first; None if it has no such layer."""
    layers = [layer for layer in net.layer if _is_data(layer) and _may_be_in(layer, phase)]
    if not layers:
        return None
    tops = list(dict.fromkeys(top for layer in layers for top in layer.top))
    if len(tops) > 2:
        raise ModelError(
            f'net "{net.name}" reads {", ".join(tops)} in phase {Phase.Name(phase)}; '
            "only images and labels can be replaced"
        )
    return tops


def _may_be_in(layer: LayerParameter, phase: Phase) -> bool:
    stages = [rule.stage for rule in layer.include]
    return any(
        is_included(layer, NetState(phase=phase, stage=stage)) for stage in ([], *(list(s) for s in stages))
    )


def _input(phase: Phase, tops: list[str], batch: int, image: tuple[int, int, int]) -> LayerParameter:
    layer = LayerParameter(name=tops[0], type="Input", top=tops)
    layer.include.add(phase=phase)
    layer.input_param.shape.add(dim=[batch, *image])
    if len(tops) > 1:
        layer.input_param.shape.add(dim=[batch])
    return layer
