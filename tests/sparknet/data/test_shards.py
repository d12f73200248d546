"""Shards are a partition; samplers read what they promise, with the frequencies they promise."""

from __future__ import annotations

import pickle
from itertools import islice

import numpy as np
import pytest

from sparknet.data import Sampler, contiguous, sampler
from sparknet.data.dataset import Indices, Selection
from sparknet.data.shards import SAMPLERS
from sparknet.errors import DataError, UsageError


@pytest.mark.parametrize(("count", "workers"), [(10, 3), (7, 7), (50_000, 6), (1, 1), (100, 99)])
def test_shards_are_contiguous_even_and_share_no_record(count: int, workers: int) -> None:
    parts = [np.arange(count)[part] for part in contiguous(count, workers)]
    assert np.array_equal(np.concatenate(parts), np.arange(count))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1
    assert len(parts) == workers


def test_more_workers_than_records_are_refused() -> None:
    with pytest.raises(DataError, match="3 records cannot be shared out among 4 workers"):
        contiguous(3, 4)
    with pytest.raises(UsageError, match="0 workers"):
        contiguous(3, 0)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("records", "batch", "tau"), [(1, 1, 1), (1, 10, 3), (7, 10, 2), (25, 10, 5), (100, 10, 3)]
)
def test_every_batch_is_whole_and_inside_the_shard(name: str, records: int, batch: int, tau: int) -> None:
    chosen = sampler(name, records=records, batch_size=batch)
    for _ in range(5):
        batches = read(chosen, tau)
        assert [b.shape for b in batches] == [(batch,)] * tau
        assert all(b.dtype == np.int64 and b.min() >= 0 and b.max() < records for b in batches)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_worker_that_is_given_the_position_reads_on_as_the_lost_one_would(name: str) -> None:
    lost = sampler(name, records=97, batch_size=10, seed=3, shard=2)
    for _ in range(4):
        list(lost.batches(5))
    position = lost.position
    expected = [read(lost, 5) for _ in range(3)]
    replacement = sampler(name, records=97, batch_size=10, seed=3, shard=2)
    replacement.position = position
    assert np.array_equal([read(replacement, 5) for _ in range(3)], expected)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_survives_a_pickle(name: str) -> None:
    first = sampler(name, records=97, batch_size=10, seed=3)
    list(first.batches(5))
    second = pickle.loads(pickle.dumps(first))
    assert np.array_equal(read(first, 5), read(second, 5))


@pytest.mark.parametrize("name", SAMPLERS)
def test_shards_and_seeds_draw_independently(name: str) -> None:
    def first_round(seed: int, shard: int) -> Indices:
        chosen = sampler(name, records=5000, batch_size=10, seed=seed, shard=shard)
        return np.concatenate(read(chosen, 3))

    assert np.array_equal(first_round(1, 0), first_round(1, 0))
    assert not np.array_equal(first_round(1, 0), first_round(1, 1))
    assert not np.array_equal(first_round(1, 0), first_round(2, 0))


def test_an_epoch_reads_each_record_exactly_once_and_the_next_in_another_order() -> None:
    chosen = sampler("epoch", records=60, batch_size=10)
    first, second = (np.concatenate(read(chosen, 6)) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(60))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("records", "batch"), [(23, 10), (7, 10), (3, 10), (10, 10)])
def test_epochs_are_exact_where_batches_straddle_them(records: int, batch: int) -> None:
    chosen = sampler("epoch", records=records, batch_size=batch)
    numbers = np.concatenate(read(chosen, records))  # batch whole epochs
    for epoch in numbers.reshape(batch, records):
        assert sorted(epoch) == list(range(records))


def test_an_epoch_is_exact_though_rounds_are_cut_short() -> None:
    chosen = sampler("epoch", records=60, batch_size=10)
    batches = [numbers(chosen, b) for taken in (2, 1, 3) for b in islice(chosen.batches(10), taken)]
    assert sorted(np.concatenate(batches)) == list(range(60))


def test_a_window_is_tau_batches_in_a_row() -> None:
    chosen = sampler("window", records=1000, batch_size=10)
    for _ in range(20):
        batches = list(chosen.batches(5))
        assert all(isinstance(batch, slice) for batch in batches)  # views, not copies
        window = np.concatenate([numbers(chosen, batch) for batch in batches])
        assert np.array_equal(window, np.arange(window[0], window[0] + 50))


def test_a_window_moves_from_round_to_round() -> None:
    chosen = sampler("window", records=100_000, batch_size=10)
    assert len({int(read(chosen, 2)[0][0]) for _ in range(20)}) > 15


@pytest.mark.parametrize(
    ("records", "batch", "tau", "starts"),
    [(60, 10, 4, 21), (41, 10, 4, 2), (40, 10, 4, 40), (25, 10, 4, 25), (7, 10, 1, 7)],
)
def test_the_start_of_a_window_is_uniform_over_every_place_it_can_have(
    records: int, batch: int, tau: int, starts: int
) -> None:
    """On 0 to n - tau b where that is at least 1, else anywhere, wrapping round: chi-square, p > 0.001."""
    chosen = sampler("window", records=records, batch_size=batch, seed=11)
    rounds = 200 * starts
    drawn = [int(read(chosen, tau)[0][0]) for _ in range(rounds)]
    counts = np.bincount(drawn, minlength=starts)
    assert len(counts) == starts
    assert chi_square(counts) < chi_square_limit(starts - 1)


def test_a_window_longer_than_its_shard_wraps_round() -> None:
    chosen = sampler("window", records=7, batch_size=5)
    window = np.concatenate(read(chosen, 3))
    assert np.array_equal(window, (window[0] + np.arange(15)) % 7)


def test_replacement_draws_every_record_equally_often() -> None:
    chosen = sampler("replacement", records=40, batch_size=100)
    counts = np.bincount(np.concatenate(read(chosen, 200)), minlength=40)
    assert chi_square(counts) < chi_square_limit(39)


def test_the_chi_square_test_would_notice_a_start_that_is_left_out() -> None:
    drawn = np.random.default_rng(0).integers(20, size=200 * 21)
    assert chi_square(np.bincount(drawn, minlength=21)) > chi_square_limit(20)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"name": "shuffle", "records": 5, "batch_size": 1},
            "'shuffle' is not one of window, epoch, replacement",
        ),
        ({"name": "epoch", "records": 5, "batch_size": 0}, "a batch of 0 records"),
        ({"name": "epoch", "records": 0, "batch_size": 1}, "shard 0 has no records"),
    ],
)
def test_samplers_that_cannot_be_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises((UsageError, DataError), match=says):
        sampler(**options)  # type: ignore[arg-type]


def read(chosen: Sampler, tau: int) -> list[Indices]:
    """The numbers of the records of one round, batch by batch."""
    return [numbers(chosen, batch) for batch in chosen.batches(tau)]


def numbers(chosen: Sampler, batch: Selection) -> Indices:
    return np.arange(chosen.records)[batch]


def chi_square(counts: Indices) -> float:
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def chi_square_limit(freedom: int) -> float:
    """The value passed once in a thousand by chance (Wilson and Hilferty's approximation, z = 3.09)."""
    spread = 2 / (9 * freedom)
    limit: float = freedom * (1 - spread + 3.09 * spread**0.5) ** 3
    return limit
