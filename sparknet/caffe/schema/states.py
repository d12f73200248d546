"""Which layers a net has in a given state: phase, level and stages against include and exclude rules.

Source: ``Net::FilterNet`` and ``Net::StateMeetsRule`` of BVLC Caffe; checked by oracle/misc/state_rules.
"""

from __future__ import annotations

from sparknet.caffe.schema.caffe_pb2 import LayerParameter, NetParameter, NetState, NetStateRule
from sparknet.errors import ModelError


def in_state(net: NetParameter, state: NetState) -> NetParameter:
    """A copy of ``net`` with only the layers that ``state`` has; its ``state`` field says which that is.

    Raises ModelError for a layer with both include and exclude rules.
    """
    kept = [layer for layer in net.layer if is_included(layer, state)]
    copy = NetParameter()
    for descriptor, value in net.ListFields():
        if descriptor.name not in ("layer", "state"):
            _copy_field(copy, descriptor.name, value)
    copy.state.CopyFrom(state)
    copy.layer.extend(kept)
    return copy


def is_included(layer: LayerParameter, state: NetState) -> bool:
    """Whether a net in ``state`` has ``layer``: any include rule met, or no exclude rule met."""
    if layer.include and layer.exclude:
        raise ModelError(f'layer "{layer.name}" has include and exclude rules: it takes one kind')
    if layer.include:
        return any(meets(state, rule) for rule in layer.include)
    return not any(meets(state, rule) for rule in layer.exclude)


def meets(state: NetState, rule: NetStateRule) -> bool:
    """Whether ``state`` fulfils everything that ``rule`` asks."""
    stages = set(state.stage)
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )


def _copy_field(target: NetParameter, name: str, value: object) -> None:
    if name in ("name", "force_backward", "debug_info"):
        setattr(target, name, value)
    else:
        getattr(target, name).extend(value)
