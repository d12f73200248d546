"""What a drawn line names: tiny data sets, pictures, solvers and weights, written once into a folder."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apps.solvers import load
from sparknet.caffe.files import weights as weight_files
from sparknet.data import Examples, cifar10, mnist, synthetic
from tests.sparknet.data import photographs

TRAIN, TEST = 60, 20

_NET = """
layer {{ name: "d" type: "Data" top: "data" top: "label" data_param {{ source: "db" batch_size: 3 }} }}
layer {{ name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param {{ pool: AVE {pooling} }} }}
{middle}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
        inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "score" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy"
        include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
"""
_HIDDEN = """
layer {{ name: "ip1" type: "InnerProduct" bottom: "{bottom}" top: "ip1"
        inner_product_param {{ num_output: 16 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }}
"""
_NORM = 'layer { name: "norm" type: "BatchNorm" bottom: "pool" top: "norm" }'

SMALL, GLOBAL = "kernel_size: 4 stride: 4", "global_pooling: true"


def _net(pooling: str, *, normed: bool = False) -> str:
    middle = _HIDDEN.format(bottom="norm" if normed else "pool")
    return _NET.format(pooling=pooling, middle=(_NORM if normed else "") + middle)


# Rates that fall early, for the schedules of tau that go by them.
_STEPS = 'base_lr: 0.0002 lr_policy: "step" gamma: 0.5 stepsize: 4'
_FIXED = 'base_lr: 0.0001 lr_policy: "fixed"'

SOLVERS = {
    "sgd.prototxt": (_net(SMALL), f"{_STEPS} momentum: 0.9 weight_decay: 0.004"),
    "plain.prototxt": (_net(SMALL), _FIXED),
    "nesterov.prototxt": (_net(SMALL), f'{_FIXED} momentum: 0.9 type: "Nesterov"'),
    "adam.prototxt": (_net(SMALL), f'{_FIXED} momentum: 0.9 type: "Adam"'),
    "normed.prototxt": (_net(SMALL, normed=True), f"{_STEPS} momentum: 0.9"),
    "other.prototxt": (_net(GLOBAL), f"{_FIXED} momentum: 0.9"),
}
"""Nets of some thousand weights, and one of some hundred."""


def write(folder: Path) -> Path:
    """Everything into ``folder``, by the names that the draws use."""
    folder.mkdir(parents=True, exist_ok=True)
    cifar10.write_binary(synthetic.draw(train=TRAIN, test=TEST), folder / "cifar10")
    drawn = synthetic.draw(train=TRAIN, test=TEST, channels=1, side=28)
    _write_idx(folder / "mnist", drawn.train, mnist.TRAIN_IMAGES, mnist.TRAIN_LABELS)
    _write_idx(folder / "mnist", drawn.test, mnist.TEST_IMAGES, mnist.TEST_LABELS)
    for synset in photographs.COLOURS:
        files = {name: data for name, data in photographs.named(8).items() if name.startswith(synset)}
        photographs.put_loose(folder / "pictures" / synset, files)
    for name, (net, solver) in SOLVERS.items():
        (folder / name).write_text(f'net_param {{ name: "Small" {net} }} {solver}\n')
    (folder / "wrong.prototxt").write_text("base_lr: 0.1\nbase_rl: 0.1\n")
    replica = load(str(folder / "sgd.prototxt"), (3, 32, 32), batch_size=1, test_batch_size=1)()
    weight_files.save(replica.net, folder / "start.caffemodel")
    return folder


def _write_idx(folder: Path, examples: Examples, images: str, labels: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / images).write_bytes(_idx(examples.images[:, 0].astype(np.uint8)))
    (folder / labels).write_bytes(_idx(examples.labels.astype(np.uint8)))


def _idx(array: NDArray[np.uint8]) -> bytes:
    header = struct.pack(f">2xBB{array.ndim}I", 8, array.ndim, *array.shape)
    return header + np.ascontiguousarray(array).tobytes()
