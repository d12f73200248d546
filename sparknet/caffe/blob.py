"""A named array of a net and its gradient: what flows between layers, or what a layer has learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparknet.weights import Shape


class Blob:
    """``data`` and ``diff``: float32 tensors of one shape, in Caffe's order of axes (N, C, H, W).

    The blob of a layer's top takes the tensor the layer made, whatever its strides; nothing is copied.
    Memory is only there once it is asked for. A parameter's tensors are views of the net's flat vectors, and
    ``lr_mult`` and ``decay_mult`` multiply the solver's rates for it.
    """

    __slots__ = ("_data", "_diff", "_shape", "decay_mult", "default_diff", "device", "lr_mult", "name")

    def __init__(
        self,
        name: str,
        shape: Sequence[int],
        *,
        device: torch.device | str = "cpu",
        lr_mult: float = 1.0,
        decay_mult: float = 1.0,
    ) -> None:
        self.name, self.device = name, torch.device(device)
        self.lr_mult, self.decay_mult = lr_mult, decay_mult
        self.default_diff = 0.0
        """What ``diff`` is full of until a layer or a user sets it: the loss weight of a loss, else 0."""
        self._shape: Shape = tuple(shape)
        self._data: Tensor | None = None
        self._diff: Tensor | None = None

    def __repr__(self) -> str:
        return f"Blob({self.name!r}, {self.shape})"

    @property
    def shape(self) -> Shape:
        return self._shape

    @property
    def count(self) -> int:
        """Number of elements."""
        return torch.Size(self._shape).numel()

    @property
    def data(self) -> Tensor:
        if self._data is None:
            self._data = torch.zeros(self._shape, device=self.device)
        return self._data

    @data.setter
    def data(self, tensor: Tensor) -> None:
        self._data, self._shape = tensor, tuple(tensor.shape)

    @property
    def diff(self) -> Tensor:
        """The gradient, of the data's shape."""
        if self._diff is None or self._diff.shape != self._shape:
            self._diff = torch.full(self._shape, self.default_diff, device=self.device)
        return self._diff

    @diff.setter
    def diff(self, tensor: Tensor) -> None:
        self._diff = tensor

    def forget_diff(self) -> None:
        """Let ``diff`` be ``default_diff`` everywhere again."""
        self._diff = None

    def reshape(self, *shape: int) -> None:
        """Give the blob another shape. The data is kept where the number of elements is the same."""
        if shape == self._shape:
            return
        if self._data is not None:
            same = self._data.numel() == torch.Size(shape).numel()
            self._data = self._data.reshape(shape) if same else None
        self._shape, self._diff = tuple(shape), None
