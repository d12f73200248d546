"""What a task of predictions does with Arrow batches: values, forms, rows that cannot be; without Spark."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pyarrow as pa
import pytest
from pyspark import cloudpickle
from torch import nn

from sparknet.data.arrow import Numbers
from sparknet.errors import DataError
from sparknet.inference import Inference
from sparknet.spark.columns import ColumnSelection, Input, Part
from sparknet.spark.predict import (
    Form,
    Likeliest,
    LikeliestOfEach,
    Lists,
    Number,
    Output,
    Probabilities,
    Scores,
    _Work,
)

FLOAT = np.dtype(np.float32)
PAIR = ColumnSelection(
    inputs=(Input("data", (Part("a", Numbers(FLOAT), ()), Part("b", Numbers(FLOAT), ())), FLOAT),)
)
SCORES = np.array([[0.0, 1], [3, 1], [-1, -1]], np.float32)


def work(outputs: list[Output], *, keep: bool = False) -> _Work:
    """The sum and the difference of two columns."""
    weights = np.array([1, 1, 1, -1, 0, 0], np.float32)
    return _Work(
        key=str(id(outputs)),
        inference=Inference(build=lambda: nn.Linear(2, 2), batch_size=2),
        weights=lambda: weights,
        selection=PAIR,
        outputs=tuple(outputs),
        keep_invalid=keep,
        cancel=said.append,
    )


said: list[str] = []


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Lists(), [[0, 1], [3, 1], [-1, -1]]),
        (Likeliest(), [1, 0, 0]),
        (Likeliest(("no", "yes")), ["yes", "no", "no"]),
    ],
)
def test_scores_are_put_into_the_form_that_is_asked_for(form: Form, expected: list[object]) -> None:
    assert form.column(SCORES).to_pylist() == expected


def test_a_class_without_a_name_is_never_the_likeliest() -> None:
    assert Likeliest(("only",)).column(SCORES).to_pylist() == ["only"] * 3


def test_sequences_have_a_class_at_every_place() -> None:
    scores = np.array([[[1.0, 0, 2], [0, 1, 3]]], np.float32)  # (1, 2 classes, 3 places)
    assert LikeliestOfEach().column(scores).to_pylist() == [[0, 1, 1]]


def test_a_number_is_a_double() -> None:
    assert Number().column(SCORES[:, :1]).to_pylist() == [0, 3, -1]


def test_vectors_are_laid_out_as_spark_does() -> None:
    (first, *_) = Scores().column(SCORES).to_pylist()
    assert first == {"type": 1, "size": None, "indices": None, "values": [0, 1]}
    values = [row["values"] for row in Probabilities().column(SCORES).to_pylist()]
    assert values[2] == [0.5, 0.5]
    assert values[0][1] == pytest.approx(1 / (1 + math.exp(-1)))


def test_every_batch_gets_its_own_rows_however_it_is_cut() -> None:
    a, b = pa.array([1.0, 2, 3, 4, 5]), pa.array([5.0, 4, 3, 2, 1])
    batches = [(a[:3], b[:3]), (a[3:], b[3:])]
    made = list(work([Output("sums", "", Lists())]).serve(iter(batches)))
    assert [row for batch in made for row in batch.to_pylist()] == [[6, -4], [6, -2], [6, 0], [6, 2], [6, 4]]


def test_several_outputs_are_a_struct() -> None:
    outputs = [Output("scores", "", Scores()), Output("class", "", Likeliest())]
    (made,) = work(outputs).serve(iter([(pa.array([1.0]), pa.array([3.0]))]))
    assert made.type.field(0).name == "scores"
    assert made.to_pylist()[0]["class"] == 0


def test_a_value_that_cannot_be_is_named_with_the_rows_before_it() -> None:
    batches = [(pa.array([1.0, 2]), pa.array([1.0, 2])), (pa.array([1.0, 2]), pa.array([1.0, None]))]
    with pytest.raises(DataError, match="column b, partition 0, row 3: NULL, but a value is needed"):
        list(work([Output("sums", "", Lists())]).serve(iter(batches)))
    assert said == ["column b, partition 0, row 3: NULL, but a value is needed"]


@pytest.mark.parametrize("wrong", [[0], [2], [4], [0, 1, 3], [0, 1, 2, 3, 4]])
def test_rows_that_cannot_be_get_null_where_they_are_kept(wrong: list[int]) -> None:
    a = [None if k in wrong else float(k) for k in range(5)]
    outputs = [Output("scores", "", Scores()), Output("class", "", Likeliest())]
    (made,) = work(outputs, keep=True).serve(iter([(pa.array(a, pa.float64()), pa.array([0.0] * 5))]))
    assert [k for k, row in enumerate(made.to_pylist()) if row is None] == wrong
    (lists,) = work([Output("sums", "", Lists())], keep=True).serve(
        iter([(pa.array(a, pa.float64()), pa.array([0.0] * 5))])
    )
    assert [k for k, row in enumerate(lists.to_pylist()) if row is None] == wrong


def test_an_empty_batch_gives_an_empty_one() -> None:
    none = pa.array([], pa.float64())
    (made,) = work([Output("sums", "", Lists())]).serve(iter([(none, none)]))
    assert len(made) == 0


def test_what_travels_can_be_pickled() -> None:
    again = pickle.loads(cloudpickle.dumps(work([Output("sums", "", Lists())])))
    (made,) = again.serve(iter([(pa.array([1.0]), pa.array([3.0]))]))
    assert made.to_pylist() == [[4, -2]]
