"""A ``Trainer`` refuses, when it is made, whatever can be known then to be wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from sparknet.errors import UsageError
from sparknet.trainer import Trainer


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 2.5}, r"batch_size is 2.5: a whole number is needed"),
        ({"batch_size": "32"}, r"batch_size is '32': a whole number is needed"),
        ({"epochs": "3"}, r"epochs is '3': a number is needed"),
        ({"epochs": float("nan")}, r"epochs is nan: it must be positive"),
        ({"rounds": True}, r"rounds is True: a whole number is needed"),
        ({"workers": 0}, r"workers is 0: it must be positive"),
        ({"lr": "0.1"}, r"lr is '0.1': a number is needed"),
        ({"lr": -0.1}, r"lr is -0.1: it must be positive"),
        ({"features": 5}, r"features has a int where the name of a column is needed: give a name, "),
        ({"features": ["a", 1]}, r"features has a int where the name of a column is needed"),
        ({"features": {"data": object()}}, r"features has a object where the name of a column"),
        ({"label": 3}, r"label is a int: the name of a column is needed, or None"),
        ({"epochs": 1, "rounds": 1}, r"epochs and rounds both say how long to train"),
        ({"model": 3}, r"the model is int: the path of a Caffe solver, a torch.nn.Module or a function"),
    ],
)
def test_what_cannot_be_is_one_sentence(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Trainer(**{"model": nn.Linear(1, 1), **options})


def test_numbers_of_numpy_are_numbers() -> None:
    trainer = Trainer(
        model=nn.Linear(1, 1),
        batch_size=np.int64(8),  # type: ignore[arg-type]
        epochs=np.float32(1.5),  # type: ignore[arg-type]
        lr=0,
        test_every=0,
    )
    assert trainer.batch_size == 8
