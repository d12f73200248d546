"""Labelled pictures in memory: what every loader returns and every shard is cut from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparknet.data.records import Records
from sparknet.errors import DataError

if TYPE_CHECKING:
    import torch

Bytes = NDArray[np.uint8]
Pixels = NDArray[np.uint8] | NDArray[np.float32]
Indices = NDArray[np.int64]
Selection = slice | Indices
"""Which records: neighbours as a slice, others by their numbers."""
Batch = Mapping[str, "torch.Tensor"]
"""A tensor (n, ...) for each column, on the replica's device: of pictures ``data`` float32 (n, c, h, w) and
``label`` int64 (n,)."""


@dataclass(frozen=True, eq=False)
class Examples:
    """``images``, (n, c, h, w), and ``labels``, int64 (n,): record i of the one and of the other.

    Pictures are uint8, or float32 where they have been worked on before.

    Raises DataError when the two do not fit together.
    """

    images: Pixels
    labels: Indices

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype not in (np.uint8, np.float32):
            raise DataError(
                f"images are {self.images.dtype} {self.images.shape}: "
                "uint8 or float32 (records, channels, height, width) is needed"
            )
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != np.int64:
            raise DataError(
                f"labels are {self.labels.dtype} {self.labels.shape} for {len(self.images):,} images: "
                "int64, one for each image, is needed"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """As those of ``Records``: the pictures are ``data``, the labels ``label``."""
        return {"data": self.images, "label": self.labels}

    def __getitem__(self, which: slice | Indices) -> Examples:
        """The records of a slice (views) or of an index array (copies)."""
        return Examples(self.images[which], self.labels[which])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one picture."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def nbytes(self) -> int:
        """Size of pixels and labels in bytes."""
        return self.images.nbytes + self.labels.nbytes

    def mean_image(self) -> NDArray[np.float32]:
        """The mean picture, float32 (c, h, w); the order of bytes does not matter.

        Raises DataError when there are no records.
        """
        if not len(self):
            raise DataError("no records: the mean image of nothing is not defined")
        exact = np.int64 if self.images.dtype == np.uint8 else np.float64
        mean: NDArray[np.float64] = self.images.sum(axis=0, dtype=exact) / len(self)
        return mean.astype(np.float32)

    def shuffled(self, seed: int) -> Examples:
        """The same records in an order that depends on ``seed`` alone."""
        return self[np.random.default_rng(seed).permutation(len(self))]


Shard = Examples | Records
"""Records that one worker trains on: what has ``columns``, a length, and can be sliced."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A training set, a test set, and what their labels mean.

    ``synthetic`` is true of drawn pictures: wherever an accuracy on them is shown, it must say so.
    """

    name: str
    train: Examples
    test: Examples
    classes: tuple[str, ...]
    synthetic: bool = False

    def __post_init__(self) -> None:
        for part, examples in (("train", self.train), ("test", self.test)):
            if not len(examples):
                raise DataError(f"{self.name}: the {part} set has no records")
            low, high = int(examples.labels.min()), int(examples.labels.max())
            if low < 0 or high >= len(self.classes):
                raise DataError(
                    f"{self.name}: the {part} set has labels {low} to {high}, "
                    f"but its {len(self.classes)} classes are 0 to {len(self.classes) - 1}"
                )
        if self.train.shape != self.test.shape:
            raise DataError(
                f"{self.name}: training pictures are {self.train.shape}, test pictures {self.test.shape}"
            )
