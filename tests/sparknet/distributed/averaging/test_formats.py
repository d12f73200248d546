"""A wire format is one class: whatever it says of itself, both ways of averaging go by it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from sparknet.codecs import CODECS, Bytes, Codec, register
from sparknet.training import Settings, train
from sparknet.weights import Vector
from tests.sparknet.distributed.fixtures import TEST, reference, shards_of
from tests.sparknet.distributed.in_process import in_process
from tests.sparknet.small import digest, small_recipe

SETTINGS = Settings(rounds=6, tau=3)


class Float16:
    """IEEE 754 half precision."""

    name = "float16"
    is_lossless = False
    keeps_residual = True

    def size(self, length: int) -> int:
        return 2 * length

    def write(self, numbers: Vector, data: Bytes) -> None:
        data.view(np.float16)[:] = numbers

    def read(self, data: Bytes, numbers: Vector) -> None:
        numbers[:] = data.view(np.float16)


class Swapped:
    """float32 in the other order of bytes."""

    name = "swapped"
    is_lossless = True
    keeps_residual = False

    def size(self, length: int) -> int:
        return 4 * length

    def write(self, numbers: Vector, data: Bytes) -> None:
        data.view(">f4")[:] = numbers

    def read(self, data: Bytes, numbers: Vector) -> None:
        numbers[:] = data.view(">f4")


@pytest.fixture(autouse=True)
def _formats(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    known = dict(CODECS)
    for kind in (Float16, Swapped):
        register(kind)
    yield
    CODECS.clear()
    CODECS.update(known)


def trained(wire: str, *, ring: bool) -> tuple[Vector, int]:
    """The weights after ``SETTINGS``, and the bytes of weights that travelled in the last round."""
    with in_process(small_recipe(test_batch_size=8), shards_of(3), TEST, wire=wire, ring=ring) as workers:
        last = list(train(workers, SETTINGS))[-1]
    return last.weights, last.bytes_between if ring else last.bytes_received


@pytest.mark.parametrize("ring", [False, True], ids=["star", "ring"])
def test_a_new_format_of_fewer_bits_carries_deltas(ring: bool) -> None:
    weights, traffic = trained("float16", ring=ring)
    _, whole = trained("float32", ring=ring)
    expected = reference(3, SETTINGS)[-1].weights
    assert 0 < np.abs(weights - expected).max() < 0.01 * np.abs(expected).max()
    assert traffic < 0.8 * whole


def test_a_format_whose_name_nobody_knows_is_lossless_if_it_says_so() -> None:
    """Among the workers its vectors travel as they are: the numbers are the reference's."""
    weights, _ = trained("swapped", ring=True)
    assert digest(weights) == digest(reference(3, SETTINGS)[-1].weights)


@pytest.mark.parametrize("wire", CODECS)
def test_every_format_says_what_it_is(wire: str) -> None:
    codec: Codec = CODECS[wire]
    assert codec.name == wire
    assert not (codec.is_lossless and codec.keeps_residual)
