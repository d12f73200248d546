"""SparkNet: training of deep nets on Spark data by local SGD and averaging (arXiv 1511.06051).

    from sparknet import CaffeModel, LocalWorkers, Recipe, Settings, train

    with LocalWorkers(recipe, shards, test) as workers:
        for done in train(workers, Settings(rounds=100, tau=10, test_every=5)):
            print(done.number, done.loss, done.accuracy)

``sparknet.spark`` has the same workers on a cluster and is the only part that needs pyspark;
``sparknet.caffe`` is pycaffe's interface. Names are imported when they are first used, torch with them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sparknet.moved import install

if TYPE_CHECKING:
    from sparknet.caffe_replica import CaffeModel
    from sparknet.data import Dataset, Examples, Transform
    from sparknet.errors import SparkNetError
    from sparknet.local import LocalWorkers
    from sparknet.outer import Average, DiLoCo, SlowMo
    from sparknet.replica import TorchReplica
    from sparknet.training import Round, Settings, Workers, train
    from sparknet.worker import Recipe, Worker

__all__ = [
    "Average",
    "CaffeModel",
    "Dataset",
    "DiLoCo",
    "Examples",
    "LocalWorkers",
    "Recipe",
    "Round",
    "Settings",
    "SlowMo",
    "SparkNetError",
    "TorchReplica",
    "Transform",
    "Worker",
    "Workers",
    "train",
]

_HOMES = {
    "sparknet.caffe_replica": ("CaffeModel",),
    "sparknet.data": ("Dataset", "Examples", "Transform"),
    "sparknet.errors": ("SparkNetError",),
    "sparknet.local": ("LocalWorkers",),
    "sparknet.outer": ("Average", "DiLoCo", "SlowMo"),
    "sparknet.replica": ("TorchReplica",),
    "sparknet.training": ("Round", "Settings", "Workers", "train"),
    "sparknet.worker": ("Recipe", "Worker"),
}

install()


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
