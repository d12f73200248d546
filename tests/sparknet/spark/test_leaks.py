"""Hundreds of rounds leave nothing behind in any process: the benchmark ``leaks``, on this folder's Spark."""

from __future__ import annotations

from typing import Literal

import pytest
from pyspark.sql import SparkSession

from tests.bench.leaks import FILES, MEMORY, SOCKETS, THREADS, Series, run

WEIGHTS = 145_578
# Per thousand rounds: far less than a copy of the weights, a thread, a socket or a file in every tenth round.
LIMITS = {MEMORY: 100 * 4 * WEIGHTS / 2**20, THREADS: 50.0, SOCKETS: 50.0, FILES: 50.0}


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.parametrize("exchange", ["star", "ring"])
def test_nothing_grows_with_the_rounds(spark: SparkSession, exchange: Literal["star", "ring"]) -> None:
    found = run(spark, exchange, workers=3, rounds=400, size=WEIGHTS)
    assert {series.who for series in found} >= {"driver", "driver's JVM", "worker 2", "worker 2's JVM"}
    assert [str(series) for series in found if series.growth > LIMITS[series.what]] == []


def test_a_series_that_grows_is_seen_to_and_a_warm_up_is_not_growth() -> None:
    rounds = list(range(10, 1001, 10))
    assert Series("driver", MEMORY, 4.0, rounds, [100 + number / 100 for number in rounds]).growth == (
        pytest.approx(10.0)
    )
    warmed = Series("driver", MEMORY, 4.0, rounds, [min(300.0, number) for number in rounds])
    assert not warmed.leaks
