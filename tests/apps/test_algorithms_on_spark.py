"""Every algorithm, and options crossed at random, on a real Spark: to the end, or refused in a sentence."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from apps.session import open_session
from apps.solvers import load
from apps.training import TrainingData, trainer_of
from sparknet.algorithms import ALGORITHMS, algorithm
from sparknet.data import Dataset, Transform
from sparknet.data.locate import Located
from sparknet.data.synthetic import draw
from sparknet.errors import UsageError
from sparknet.spark import session
from sparknet.trainer import Trained
from tests.apps.test_options import crossed, parsed

pytestmark = [pytest.mark.spark, pytest.mark.slow]

ROUNDS, CROSSED = 4, 5


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    made = session("algorithms", "local[3]", {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1"})
    made.sparkContext.setLogLevel("OFF")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def drawn() -> Dataset:
    return draw(train=150, test=20)


def fitted(spark: SparkSession, drawn: Dataset, folder: Path, *words: str) -> Trained:
    """What an app with these options makes of a run of few rounds. Raises UsageError if it refuses them."""
    small = ("--rounds", str(ROUNDS), "--batch-size", "4", "--test-every", "3", "--output", str(folder))
    options = parsed(*small, *words)
    data = TrainingData.of(Located(dataset=drawn, origin="drawn"), Transform())
    model = load("cifar10_quick_solver.prototxt", (3, 32, 32), batch_size=4, test_batch_size=10)
    return trainer_of(data, options, model).fit(data, data.test, spark=spark)


def check(trained: Trained) -> None:
    assert len(trained.history) == ROUNDS
    assert np.isfinite(trained.weights).all()
    assert trained.history[-1].accuracy is not None


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_runs_to_its_end(
    name: str, spark: SparkSession, drawn: Dataset, tmp_path: Path
) -> None:
    workers = 1 if name == "serial" else 2
    tau = () if algorithm(name).tau else ("--tau", "2")
    trained = fitted(spark, drawn, tmp_path, "--algorithm", name, *tau, "--workers", str(workers))
    check(trained)
    assert max(record.workers for record in trained.history) <= workers
    assert all(record.steps for record in trained.history)
    assert in_force(tmp_path, "algorithm").startswith((f"{name},", f"{name}: "))
    way = "ring" if name == "sync" else "star"  # small weights go through the driver, gradients do not
    assert in_force(tmp_path, "exchange of weights") == f"auto: {way}, float32"
    assert ("moving_rate 0.9 / K" in in_force(tmp_path, "algorithm")) == (name in ("easgd", "eamsgd"))


def in_force(folder: Path, name: str) -> str:
    """What the report of a run says of a setting."""
    [value] = re.findall(rf'<th scope="row">{name}</th><td>([^<]*)<', (folder / "report.html").read_text())
    return str(value)


def test_a_report_says_which_options_of_an_algorithm_were_in_force(
    spark: SparkSession, drawn: Dataset, tmp_path: Path
) -> None:
    words = ("--algorithm", "slowmo", "--outer-lr", "0.8", "--workers", "2", "--tau", "1")
    fitted(spark, drawn, tmp_path, *words, "--exchange", "ring", "--wire", "int8")
    assert in_force(tmp_path, "algorithm") == "slowmo, outer_lr 0.8, outer_momentum 0.5, momentum: reset"
    assert in_force(tmp_path, "exchange of weights") == "ring, int8"


def test_an_app_leaves_a_session_running_that_was_there_before(spark: SparkSession) -> None:
    with open_session("an app") as opened:
        assert opened.sparkContext is spark.sparkContext
    assert spark.sparkContext.parallelize([1, 2]).sum() == 3


def test_options_that_are_crossed_at_random_run_to_their_end_or_are_refused(
    spark: SparkSession, drawn: Dataset, tmp_path: Path
) -> None:
    """No hang and no silent fall-back: what was asked for is on record."""
    ran, sentences = 0, list[str]()
    for seed in count(1000):
        if ran == CROSSED:
            break
        words, folder = crossed(random.Random(seed)), tmp_path / str(seed)
        try:
            options = parsed(*words)
            trained = fitted(spark, drawn, folder, *words)
        except UsageError as error:
            sentences.append(str(error))
            continue
        ran += 1
        check(trained)
        taus = {record.tau for record in trained.history}
        if isinstance(options.tau, int) and options.tau_schedule == "constant":
            assert taus == {options.tau}, words
        in_ring = any(record.bytes_between for record in trained.history)
        many = max(record.workers for record in trained.history) > 1
        asked = options.exchange == "ring" or (options.exchange == "auto" and options.algorithm == "sync")
        assert in_ring == (asked and many), words
    assert sentences
    assert not any("\n" in sentence for sentence in sentences)
