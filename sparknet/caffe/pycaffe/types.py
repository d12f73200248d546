"""The layer types there are, as ``caffe.layer_type_list``."""

from __future__ import annotations

from sparknet.caffe.layers import TYPES


def layer_type_list() -> list[str]:
    """The names that ``type`` of a layer in a prototxt can have, sorted."""
    return sorted(TYPES)
