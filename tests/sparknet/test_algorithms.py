"""Every algorithm that has a name: it trains, it can be resumed, and what it cannot do is one sentence."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.solvers import load
from sparknet import easgd
from sparknet.algorithms import ALGORITHMS, Algorithm, Asked, algorithm, table
from sparknet.checkpoint import Checkpoints, resumed
from sparknet.data import contiguous
from sparknet.easgd import Elastic, LockFree
from sparknet.errors import UsageError
from sparknet.local import LocalWorkers
from sparknet.outer import Average, DiLoCo, SlowMo
from sparknet.torch_model import TorchModel
from sparknet.trainer import Trainer
from sparknet.trainer.nets import check_nesterov, with_nesterov
from sparknet.training import train
from tests.sparknet.small import digest, pictures, small_net, small_recipe

DOCS = Path(__file__).parents[2] / "docs" / "algorithms.md"
SHARDS = [pictures()[part] for part in contiguous(240, 3)]
TEST = pictures(70, seed=1)


def chosen(name: str, workers: int = 3) -> tuple[Algorithm, int, int]:
    """The algorithm, its workers and its tau."""
    found = algorithm(name)
    workers = 1 if "workers" in found.refuses else workers
    return found.of(workers), workers, min(found.tau or 5, 10)


def test_the_table_of_the_docs_is_made_of_them() -> None:
    assert table() in DOCS.read_text()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_it_trains(name: str) -> None:
    found, workers, tau = chosen(name)
    settings = found.settings(rounds=200 // tau, tau=tau, test_every=200 // tau)
    with LocalWorkers(small_recipe(), SHARDS[:workers], TEST) as local:
        done = list(found.train(local, settings, found.outer()))
    assert done[-1].accuracy is not None
    assert done[-1].accuracy > 0.6
    assert done[-1].loss < done[0].loss


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_resumed_run_is_the_one_that_went_on_bit_for_bit(name: str, overlap: bool, tmp_path: Path) -> None:
    found, workers, tau = chosen(name)
    if overlap and "overlap" in found.refuses:
        pytest.skip("it refuses to overlap")
    settings = found.settings(rounds=11, tau=tau, overlap=overlap, drain_every=4)

    def run(folder: Path) -> str:
        checkpoints, outer = Checkpoints(str(folder), every=4, keep=9), found.outer()
        with LocalWorkers(small_recipe(), SHARDS[:workers]) as local:
            start = resumed(checkpoints.latest(), local, outer)
            for done in found.train(local, settings, outer, **start):
                checkpoints.after(done, local, outer)
        return digest(done.weights)

    went_on = run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"round-{n:08d}" for n in (4, 8, 11)]
    for later in ("round-00000008", "round-00000011"):
        (tmp_path / later / "manifest.json").unlink()
    assert run(tmp_path) == went_on


@pytest.mark.parametrize(
    ("name", "asked", "says"),
    [
        ("easgd", Asked(overlap=True), "--overlap is for rounds that all workers share"),
        ("easgd", Asked(momentum="average"), "each worker keeps its own momentum"),
        ("eamsgd", Asked(quorum=0.5), "nobody waits for others"),
        ("easgd-lockfree", Asked(exchange="ring"), "a centre in the driver"),
        ("easgd", Asked(tau="auto"), "give a number of steps"),
        ("sync", Asked(tau=10), "sync averages the gradient of every step"),
        ("sync", Asked(overlap=True), "--algorithm average --tau 1 --overlap does that"),
        ("serial", Asked(workers=2), "serial is one worker alone"),
    ],
)
def test_what_cannot_be_is_one_sentence(name: str, asked: Asked, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        algorithm(name).check(asked)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_not_said_is_never_refused(name: str) -> None:
    found = algorithm(name)
    found.check(Asked())
    found.check(Asked(tau=found.tau))


def test_options_are_those_of_the_algorithm() -> None:
    slowmo = algorithm("slowmo").with_options({"outer_momentum": 0.2, "outer_lr": None}).outer()
    assert isinstance(slowmo, SlowMo)
    assert (slowmo.step_size, slowmo.momentum) == (1.0, 0.2)
    diloco = algorithm("diloco").with_options({"outer_lr": 0.4}).outer()
    assert isinstance(diloco, DiLoCo)
    assert (diloco.lr, diloco.momentum) == (0.4, 0.3)
    assert algorithm("easgd").with_options({"moving_rate": 0.2}).outer().moving_rate == 0.2
    with pytest.raises(UsageError, match=r"outer_lr is no option of this algorithm .* has none"):
        algorithm("average").with_options({"outer_lr": 0.4})
    with pytest.raises(UsageError, match="moving rate is 2"):
        algorithm("easgd").with_options({"moving_rate": 2})
    with pytest.raises(UsageError, match="there is no algorithm 'adam': average, slowmo"):
        algorithm("adam")


def test_diloco_goes_as_far_as_the_average_in_the_long_run() -> None:
    """Its defaults are for nets whose own momentum has been tuned: a steady direction is not multiplied."""
    outer, w = algorithm("diloco").outer(), np.zeros(1, np.float32)
    steps = []
    for _ in range(50):
        after = outer.step(w, w + np.float32(1), 0.1)
        steps.append(float((after - w)[0]))
        w = after
    assert steps[-1] == pytest.approx(1.0, abs=1e-4)


def test_auto_takes_longer_steps_with_more_workers() -> None:
    auto = algorithm("auto")
    assert auto.of(1) is algorithm("average")
    rules = [auto.of(workers).rate for workers in (2, 3, 4, 64)]
    assert [rule.scale for rule in rules if rule] == [2, 3, 4, 4]
    assert all(rule and rule.factor(100, 100) == 1 for rule in rules)
    assert isinstance(auto.of(4, 24).outer(), Average)
    assert auto.of(4, 10).momentum == "keep"
    long = auto.of(4, 25)
    assert isinstance(long.outer(), DiLoCo)
    assert long.options == {"outer_lr": 0.9, "outer_momentum": 0.8}
    assert long.rate
    assert long.rate.scale == 2
    assert auto.of(1, 50) is algorithm("average")
    assert algorithm("average").of(64) is algorithm("average")


def test_for_sgd_a_step_of_sync_is_the_average_of_weights_after_one_but_for_rounding() -> None:
    weights = []
    for name in ("sync", "average"):
        found = algorithm(name)
        with LocalWorkers(small_recipe(), SHARDS) as local:
            weights.append(
                list(found.train(local, found.settings(rounds=20, tau=1), found.outer()))[-1].weights
            )
    assert np.abs(weights[0] - weights[1]).max() < 2e-6


def test_elastic_averaging_waits_for_its_workers_where_a_checkpoint_is_taken() -> None:
    found = algorithm("easgd")
    with LocalWorkers(small_recipe(), SHARDS) as local:
        done = list(found.train(local, found.settings(rounds=7, tau=2, drain_every=3), found.outer()))
    assert [r.number for r in done if r.drained] == [3, 6, 7]


def test_a_server_without_locks_loses_what_was_exchanged_meanwhile() -> None:
    """Between the two halves of one exchange another one is made: its pull on the centre is gone."""

    class Interrupted(LockFree):
        other: np.ndarray | None = None

        def _check(self, member: int, vector: np.ndarray) -> None:
            super()._check(member, vector)

    start, x0, x1 = (np.full(4, value, np.float32) for value in (0.0, 1.0, 3.0))
    server = Interrupted(start)
    real = easgd.time.sleep
    calls = []

    def interrupt(_seconds: float) -> None:
        if not calls:
            calls.append(1)
            server.exchange(1, x1, 2)

    easgd.time.sleep = interrupt  # type: ignore[assignment]
    try:
        server.exchange(0, x0, 2)
    finally:
        easgd.time.sleep = real
    assert np.allclose(server.center, 0.1)  # worker 0's pull alone
    assert np.allclose(server.start_of(0), 0.9)
    assert np.allclose(server.start_of(1), 2.7)


def test_elastic_averaging_is_resumed_with_every_worker_where_it_was() -> None:
    elastic = Elastic(np.zeros(3, np.float32))
    elastic.exchange(2, np.ones(3, np.float32), 3)
    again = Elastic()
    again.resume(elastic.state)
    again.begin(elastic.center)
    assert np.array_equal(again.start_of(2), elastic.start_of(2))
    assert np.array_equal(again.start_of(0), elastic.center)


def test_eamsgd_takes_nesterov_s_momentum_for_a_caffe_solver() -> None:
    model = load("cifar10_quick_solver.prototxt", (3, 32, 32), batch_size=2, test_batch_size=2)
    changed = with_nesterov(model)
    assert (changed.solver.type, changed.solver.momentum) == ("Nesterov", model.solver.momentum)
    assert model.solver.type == "SGD"
    model.solver.momentum = 0
    with pytest.raises(UsageError, match="with momentum 0: choose easgd"):
        with_nesterov(model)
    model.solver.type = "AdaGrad"
    with pytest.raises(UsageError, match="this one is AdaGrad"):
        with_nesterov(model)


def test_eamsgd_asks_for_an_optimiser_that_has_nesterov_s_momentum() -> None:
    nesterov = partial(torch.optim.SGD, momentum=0.9, nesterov=True)
    check_nesterov(TorchModel(module=small_net, optimizer=nesterov, lr=0.1))
    with pytest.raises(UsageError, match="nesterov=True"):
        check_nesterov(TorchModel(module=small_net, optimizer="adam", lr=0.1))


def test_algorithms_of_rounds_are_those_of_training() -> None:
    assert [name for name, each in ALGORITHMS.items() if each.train is not train] == [
        "easgd",
        "easgd-lockfree",
        "eamsgd",
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tau": "auto"}, "how many rounds there are in epochs is not known"),
        ({"tau": "often", "rounds": 1}, "tau is 'often': a number of steps, a schedule of them, or auto"),
        ({"tau": 0}, "tau is 0: it must be positive"),
        ({"algorithm": "easgd", "overlap": True}, "--overlap is for rounds that all workers share"),
        ({"algorithm": "easgd", "outer": Average}, "elastic averaging has none, only a centre"),
        ({"algorithm": "sync", "outer": Average}, "an outer optimiser is for averages of weights"),
        ({"algorithm_options": {"outer_lr": 0.3}}, "outer_lr is no option of this algorithm"),
        ({"overhead": 0}, "exchanges may cost is 0"),
    ],
)
def test_the_trainer_says_what_cannot_be_when_it_is_made(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Trainer(model=small_net, **options)  # type: ignore[arg-type]
