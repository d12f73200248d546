"""Wire formats: their sizes, their rounding, and that error feedback loses nothing for good."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparknet.errors import UsageError
from sparknet.weights import Vector
from sparknet.wire import CODECS, Changes, Followed, codec


def drawn(size: int, seed: int = 0) -> Vector:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [1, 255, 256, 257, 10_000])
def test_what_is_written_has_the_size_that_was_said_and_comes_back(name: str, size: int) -> None:
    data = codec(name).encode(drawn(size))
    assert data.dtype == np.uint8
    assert data.size == codec(name).size(size)
    back = codec(name).decode(data, size)
    assert back.dtype == np.float32
    assert back.shape == (size,)


def test_fewer_bits_are_a_half_and_a_quarter_of_the_bytes() -> None:
    whole = codec("float32").size(145_578)
    assert codec("bfloat16").size(145_578) / whole == 0.5
    assert codec("int8").size(145_578) / whole < 0.25 * 1.02


def test_float32_is_exact() -> None:
    assert np.array_equal(codec("float32").decode(codec("float32").encode(drawn(999)), 999), drawn(999))


def test_bfloat16_rounds_to_nearest_even_as_torch_does() -> None:
    expected = torch.from_numpy(drawn(5000)).to(torch.bfloat16).float().numpy()
    assert np.array_equal(codec("bfloat16").decode(codec("bfloat16").encode(drawn(5000)), 5000), expected)


def test_int8_is_off_by_half_a_step_of_its_block_at_most() -> None:
    vector = drawn(2560) * np.repeat(np.float32(10.0) ** np.arange(-5, 5), 256)
    back = codec("int8").decode(codec("int8").encode(vector), vector.size)
    steps = np.abs(vector.reshape(10, 256)).max(1, keepdims=True) / 127
    assert (np.abs(back - vector).reshape(10, 256) <= 0.5001 * steps).all()


@pytest.mark.parametrize("name", ["bfloat16", "int8"])
def test_the_sum_of_what_arrives_keeps_up_with_the_sum_of_what_was_sent(name: str) -> None:
    changes, sent, arrived, alone = Changes(codec(name)), np.zeros(3000), np.zeros(3000), np.zeros(3000)
    for step in range(200):
        change = drawn(3000, step) * 0.01 + np.float32(1e-4)
        sent += change
        arrived += codec(name).decode(changes.encode(change), 3000)
        alone += codec(name).decode(codec(name).encode(change), 3000)
    assert np.abs(arrived - sent).max() < 4e-4
    assert np.abs(alone - sent).max() > 2 * np.abs(arrived - sent).max()


@pytest.mark.parametrize("name", ["bfloat16", "int8"])
def test_followers_stay_within_one_rounding_of_the_weights(name: str) -> None:
    followed, known = Followed(codec(name)), drawn(3000)
    weights = drawn(3000)
    followed.move(weights)
    for step in range(1, 50):
        weights = weights + drawn(3000, step) * np.float32(0.01)
        followed.move(weights)
        known = known + codec(name).decode(followed.change, 3000)
        assert np.array_equal(known, followed.known)
    assert np.abs(followed.known - weights).max() < 4e-4


def test_a_change_that_is_not_a_number_does_not_haunt_the_next() -> None:
    changes = Changes(codec("bfloat16"))
    changes.encode(np.full(10, np.nan, np.float32))
    assert np.isfinite(codec("bfloat16").decode(changes.encode(np.ones(10, np.float32)), 10)).all()


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match="'fp4' is not one of float32, bfloat16, int8"):
        codec("fp4")
