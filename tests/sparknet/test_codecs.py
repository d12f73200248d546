"""Wire formats: their sizes, their rounding, and that error feedback loses nothing for good."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from sparknet.codecs import CHUNK, CODECS, Bytes, Codec, chunks, get_codec
from sparknet.deltas import DeltaEncoder, DeltaTracker, apply_delta
from sparknet.errors import UsageError
from sparknet.weights import Vector

LOSSY = [name for name, codec in CODECS.items() if not codec.is_lossless]


def drawn(size: int, seed: int = 0) -> Vector:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def written(codec: Codec, vector: Vector) -> Bytes:
    data = np.full(codec.size(vector.size), 77, np.uint8)
    for where, at in chunks(codec, vector.size):
        codec.write(vector[where], data[at])
    return data


def read(codec: Codec, data: Bytes, length: int) -> Vector:
    vector = np.full(length, np.nan, np.float32)
    for where, at in chunks(codec, length):
        codec.read(data[at], vector[where])
    return vector


def encoded(encoder: DeltaEncoder, change: Vector) -> Bytes:
    data = np.empty(encoder.codec.size(change.size), np.uint8)
    encoder.encode(change, np.zeros_like(change), data)
    return data


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [1, 255, 256, 257, 10_000, CHUNK, 2 * CHUNK + 259])
def test_what_is_written_fills_the_size_that_was_said_and_comes_back(name: str, size: int) -> None:
    parts = list(chunks(get_codec(name), size))
    assert parts[0][1].start == 0
    assert all(before[1].stop == after[1].start for before, after in pairwise(parts))
    assert parts[-1][1].stop == get_codec(name).size(size)
    back = read(get_codec(name), written(get_codec(name), drawn(size)), size)
    assert np.abs(back - drawn(size)).max() < 0.02


def test_fewer_bits_are_a_half_and_a_quarter_of_the_bytes() -> None:
    whole = get_codec("float32").size(145_578)
    assert get_codec("bfloat16").size(145_578) / whole == 0.5
    assert get_codec("int8").size(145_578) / whole < 0.25 * 1.02


def test_float32_is_exact() -> None:
    assert np.array_equal(
        read(get_codec("float32"), written(get_codec("float32"), drawn(999)), 999), drawn(999)
    )


def test_bfloat16_rounds_to_nearest_even_as_torch_does() -> None:
    expected = torch.from_numpy(drawn(5000)).to(torch.bfloat16).float().numpy()
    assert np.array_equal(
        read(get_codec("bfloat16"), written(get_codec("bfloat16"), drawn(5000)), 5000), expected
    )


def test_int8_is_off_by_half_a_step_of_its_block_at_most() -> None:
    vector = drawn(2560) * np.repeat(np.float32(10.0) ** np.arange(-5, 5), 256)
    back = read(get_codec("int8"), written(get_codec("int8"), vector), vector.size)
    steps = np.abs(vector.reshape(10, 256)).max(1, keepdims=True) / 127
    assert (np.abs(back - vector).reshape(10, 256) <= 0.5001 * steps).all()


@pytest.mark.parametrize("name", LOSSY)
def test_the_sum_of_what_arrives_keeps_up_with_the_sum_of_what_was_sent(name: str) -> None:
    encoder, forgetful = (
        DeltaEncoder(get_codec(name), 3000),
        DeltaEncoder(get_codec(name), 3000, feedback=False),
    )
    sent, arrived, alone = np.zeros((3, 3000))
    for step in range(200):
        change = drawn(3000, step) * 0.01 + np.float32(1e-4)
        sent += change
        arrived += read(get_codec(name), encoded(encoder, change), 3000)
        alone += read(get_codec(name), encoded(forgetful, change), 3000)
    assert np.abs(arrived - sent).max() < 4e-4
    assert np.abs(alone - sent).max() > 2 * np.abs(arrived - sent).max()


@pytest.mark.parametrize("name", LOSSY)
def test_followers_stay_within_one_rounding_of_the_weights(name: str) -> None:
    tracker, known = DeltaTracker(get_codec(name)), drawn(3000)
    weights = drawn(3000)
    tracker.move(weights)
    for step in range(1, 50):
        weights = weights + drawn(3000, step) * np.float32(0.01)
        tracker.move(weights)
        apply_delta(get_codec(name), tracker.delta, known, known)
        assert np.array_equal(known, tracker.known)
    assert np.abs(tracker.known - weights).max() < 4e-4


def test_a_delta_that_is_not_a_number_does_not_spoil_the_next() -> None:
    encoder = DeltaEncoder(get_codec("bfloat16"), 10)
    assert np.isnan(read(get_codec("bfloat16"), encoded(encoder, np.full(10, np.nan, np.float32)), 10)).all()
    assert (read(get_codec("bfloat16"), encoded(encoder, np.ones(10, np.float32)), 10) == 1).all()


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match="'fp4' is not one of float32, bfloat16, int8"):
        get_codec("fp4")
