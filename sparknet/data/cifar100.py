"""CIFAR-100 files: the official binary layout and the official Python pickles.

Binary: records of 3,074 bytes, a coarse label (of 20), a fine one (of 100), then the picture as CIFAR-10 has
it (https://www.cs.toronto.edu/~kriz/cifar.html). The fine label is the class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparknet.data import cifar10
from sparknet.data.dataset import Examples
from sparknet.errors import DataError

RECORD_BYTES = cifar10.RECORD_BYTES + 1
# fmt: off
CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup",
    "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house",
    "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man",
    "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
    "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew",
    "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower",
    "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor", "train", "trout",
    "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
)
# fmt: on


def read_binary(file: Path) -> Examples:
    """The records of ``train.bin`` or ``test.bin``. Raises DataError if it is missing or cut short."""
    raw = cifar10.contents(file)
    if not raw or len(raw) % RECORD_BYTES:
        raise DataError(
            f"{file} is {len(raw):,} bytes long, not a whole number of {RECORD_BYTES}-byte records: "
            "it is cut short or is no CIFAR-100; fetch it again"
        )
    records = np.frombuffer(raw, np.uint8).reshape(-1, RECORD_BYTES)
    return cifar10.examples(file, records[:, 2:], records[:, 1], len(CLASSES))


def read_python(file: Path) -> Examples:
    """The records of the pickle ``train`` or ``test``, of which nothing is executed. Raises DataError."""
    data, labels = cifar10.unpickled(file, "fine_labels", len(CLASSES))
    return cifar10.examples(file, data, labels, len(CLASSES))
