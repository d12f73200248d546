"""A ``Trainer`` refuses, when it is made, whatever can be known then to be wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from apps.solvers import load
from sparknet.distributed.timeouts import Timeouts
from sparknet.errors import UsageError
from sparknet.outer import SlowMo
from sparknet.trainer import Cluster, Trainer


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
        ({"seed": 2**64}, r"seed is 18446744073709551616: at most 18446744073709551615"),
        ({"tau": 1.5, "rounds": 1}, r"tau is 1.5: a number of steps, a schedule of them, or auto"),
        ({"overhead": "small"}, r"overhead is 'small': a number is needed"),
        ({"overhead": 0.2}, r"--overhead is what --tau auto goes by"),
        ({"overlap": True, "momentum": "average"}, r"which they do not with --overlap"),
        ({"momentum": ""}, r"momentum is '': keep, average, reset"),
        ({"sampling": "sorted"}, r"sampling 'sorted' is not one of"),
        ({"resume": True}, r"resume needs checkpoints: where is the run to go on from"),
        ({"tensorboard": "curves"}, r"a run with an output folder: give output too"),
        ({"cluster": Cluster(wire="float64")}, r"the wire format 'float64' is not one of"),
        ({"cluster": Cluster(exchange="tree")}, r"exchange is 'tree': auto, star, ring"),
        ({"cluster": Cluster(exchange="star", copy_every=3)}, r"--copy-every is for a ring"),
        ({"cluster": Cluster(profile=-1)}, r"profile is -1: it must be positive"),
        ({"cluster": Cluster(fragments="3")}, r"fragments is '3': a whole number is needed"),  # type: ignore[arg-type]
        ({"cluster": Cluster(precision="bf16")}, r"precision bf16 is for Caffe nets"),
        ({"algorithm": "slowmo", "outer": SlowMo}, r"outer and algorithm slowmo both say what becomes"),
        (
            {"algorithm": "slowmo", "algorithm_options": {"outer_lr": "fast"}},
            r"outer_lr is 'fast': a finite number is needed",
        ),
        (
            {"algorithm": "easgd", "algorithm_options": {"moving_rate": float("inf")}},
            r"moving_rate is inf: a finite number is needed",
        ),
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


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"quorum": 1.5}, r"quorum is 1.5: a share of the workers, at most 1"),
        ({"quorum": 0}, r"the timeout quorum is 0: it must be positive"),
        ({"grace": 1.0}, r"grace is what a quorum below 1 leaves the others"),
        ({"round": float("inf")}, r"the timeout round is inf: a finite number is needed"),
        ({"join": "soon"}, r"the timeout join is 'soon': a finite number is needed"),
        ({"ping": -1}, r"the timeout ping is -1: it must be positive"),
    ],
)
def test_a_time_that_cannot_be_is_one_sentence(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Timeouts(**options)


def test_a_net_computes_in_the_precision_that_was_asked_for() -> None:
    sizes = {"batch_size": 2, "test_batch_size": 2}
    full = load("lenet_solver.prototxt", (1, 28, 28), **sizes)
    with pytest.raises(
        UsageError, match="the model computes in float32, and the cluster's precision is bf16"
    ):
        Trainer(model=full, cluster=Cluster(precision="bf16"))
    low = load("lenet_solver.prototxt", (1, 28, 28), precision="bf16", **sizes)
    assert Trainer(model=low, cluster=Cluster(precision="bf16")).model is low
