"""Signals become requests, and a running solver heeds them where Caffe does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparknet.caffe.schema import parse_solver
from sparknet.caffe.solver import Solver
from sparknet.caffe.solver.signals import Action, SignalRequests

SOLVER = """
net_param {
  layer { name: "data" type: "DummyData" top: "x" top: "label"
          dummy_data_param { shape { dim: [2, 3] } shape { dim: 2 } data_filler { type: "gaussian" }
                             data_filler { type: "constant" } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" }
}
base_lr: 0.1 lr_policy: "fixed" max_iter: 10 test_iter: 3 test_interval: 4 snapshot_prefix: "{prefix}"
"""


def solver_in(folder: Path) -> Solver:
    return Solver.for_param(parse_solver(SOLVER.replace("{prefix}", str(folder / "snap"))))


def asking(*actions: Action) -> Iterator[Action]:
    yield from actions
    while True:
        yield Action.NONE


def test_a_signal_is_a_request_that_is_answered_once() -> None:
    with SignalRequests(sigint=Action.STOP, sighup=Action.SNAPSHOT) as requests:
        assert requests() is Action.NONE
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGINT)
        assert [requests(), requests(), requests()] == [Action.STOP, Action.SNAPSHOT, Action.NONE]


def test_the_former_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with SignalRequests():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_a_request_to_stop_ends_training_after_the_iteration_with_a_snapshot(tmp_path: Path) -> None:
    solver = solver_in(tmp_path)
    solver.param.test_interval = 0
    actions = asking(Action.NONE, Action.NONE, Action.STOP)
    solver.requested_action = lambda: next(actions)
    solver.solve()
    assert (solver.iter, solver.stopped) == (3, True)
    assert (tmp_path / "snap_iter_3.solverstate").exists()


def test_a_request_for_a_snapshot_writes_one_and_goes_on(tmp_path: Path) -> None:
    solver = solver_in(tmp_path)
    solver.param.test_interval = 0
    actions = asking(Action.NONE, Action.SNAPSHOT)
    solver.requested_action = lambda: next(actions)
    solver.solve()
    assert solver.iter == 10
    assert (tmp_path / "snap_iter_2.solverstate").exists()


def test_a_request_to_stop_during_a_test_ends_the_test_and_the_training(tmp_path: Path) -> None:
    solver = solver_in(tmp_path)
    actions = asking(Action.NONE, Action.STOP)
    solver.requested_action = lambda: next(actions)
    solver.solve()
    assert (solver.iter, solver.stopped) == (0, True)


def test_a_solver_that_was_stopped_can_be_run_again(tmp_path: Path) -> None:
    solver = solver_in(tmp_path)
    actions = asking(Action.STOP)
    solver.requested_action = lambda: next(actions)
    solver.solve()
    solver.solve()
    assert (solver.iter, solver.stopped) == (10, False)


@pytest.mark.parametrize(("initial", "tests"), [(True, 4), (False, 3)])
def test_tests_fall_due_before_the_iteration_and_after_the_last(
    tmp_path: Path, initial: bool, tests: int
) -> None:
    solver = solver_in(tmp_path)
    solver.param.max_iter, solver.param.test_initialization = 12, initial
    solver.param.snapshot_after_train = False
    made: list[int] = []
    test = solver.test
    solver.test = lambda *given: made.append(solver.iter) or test(*given)  # type: ignore[func-returns-value,assignment]
    solver.solve()
    assert made == [0, 4, 8, 12][-tests:]
