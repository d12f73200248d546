"""``import caffe`` as another name of ``sparknet.caffe``, for layers in Python that were written for pycaffe.

    install()
    import caffe                      # is sparknet.caffe
    from caffe.proto import caffe_pb2 # is sparknet.caffe.proto.caffe_pb2

A net installs it before it imports the module of its first Python layer, unless something else has been
imported as ``caffe`` by then.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

_NAME, _TARGET = "caffe", "sparknet.caffe"


class _Alias(MetaPathFinder, Loader):
    """Finds ``caffe`` and what is in it."""

    def find_spec(self, fullname: str, *_: object, **__: object) -> ModuleSpec | None:
        if fullname.partition(".")[0] != _NAME or importlib.util.find_spec(_target(fullname)) is None:
            return None
        return spec_from_loader(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(_target(spec.name))
        spec.loader_state = module.__spec__  # which importing under another name replaces
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do: the module has been imported under its own name."""
        replaced = module.__spec__
        if replaced is not None:
            module.__spec__ = replaced.loader_state


def install() -> None:
    """Let ``import caffe`` give ``sparknet.caffe`` from now on, where it is not imported yet."""
    if _NAME not in sys.modules and not any(isinstance(finder, _Alias) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Alias())


def _target(name: str) -> str:
    return _TARGET + name.removeprefix(_NAME)
