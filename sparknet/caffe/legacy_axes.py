"""The four names that Caffe gives to the first axes of a blob: num, channels, height, width."""

from __future__ import annotations

from sparknet.errors import ModelError


class LegacyAxes:
    """``num``, ``channels``, ``height`` and ``width`` of whatever has a ``shape``; 1 for axes it has not.

    As ``Blob::LegacyShape`` of blob.hpp they are refused, with ModelError, for more than four axes.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def num(self) -> int:
        return self._legacy(0)

    @property
    def channels(self) -> int:
        return self._legacy(1)

    @property
    def height(self) -> int:
        return self._legacy(2)

    @property
    def width(self) -> int:
        return self._legacy(3)

    def _legacy(self, axis: int) -> int:
        if len(self.shape) > 4:
            raise ModelError(
                f"num, channels, height and width are of blobs with 4 axes at most, not {self.shape}"
            )
        return self.shape[axis] if axis < len(self.shape) else 1
