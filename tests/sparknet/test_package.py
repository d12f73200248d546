"""The public surface of the trainer."""

from __future__ import annotations

import pytest

import sparknet


def test_every_public_name_is_there() -> None:
    assert sorted(sparknet.__all__) == sparknet.__all__
    assert sparknet.__all__ == sorted(name for names in sparknet._HOMES.values() for name in names)
    assert all(getattr(sparknet, name).__name__ == name for name in sparknet.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = sparknet.trian  # type: ignore[attr-defined]
