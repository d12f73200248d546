"""The learning rate through a run of several workers: raised, held, and what was set again in the end."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from apps.solvers import load
from sparknet.caffe_replica import CaffeModel
from sparknet.data import Examples, Transform
from sparknet.errors import UsageError
from sparknet.local import LocalWorkers
from sparknet.rate_rule import RateRule
from sparknet.replica import TorchReplica
from sparknet.torch_model import TorchModel
from sparknet.trainer.nets import is_sgd
from sparknet.training import Round, RoundPlan, Settings, train
from sparknet.worker import Recipe
from tests.bench.scaling import Scaling
from tests.sparknet.small import digest, pictures, small_net, small_recipe

SHARDS = [pictures(seed=seed) for seed in (1, 2)]
RULE = RateRule(scale=4, warm_up=0.25, hold=0.5)


def lenet(base_lr: float | None = None) -> CaffeModel:
    model = load("lenet_solver.prototxt", (1, 28, 28), batch_size=4, test_batch_size=4)
    if base_lr is not None:
        model.solver.base_lr = base_lr
    return model


def trained(model: CaffeModel, rate: RateRule | None) -> list[Round]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 1, 28, 28), np.uint8)
    shards = [Examples(images[part], np.arange(20) % 10) for part in (slice(20), slice(20, 40))]
    recipe = Recipe(replica=model, batch_size=4, transform=Transform(scale=1 / 256))
    with LocalWorkers(recipe, shards) as workers:
        return list(train(workers, Settings(rounds=8, tau=2, rate=rate)))


def test_the_rate_rises_stays_and_falls_back() -> None:
    factors = [RULE.factor(number, 8) for number in range(1, 9)]
    assert factors == [2.5, 4.0, 4.0, 4.0, 3.25, 2.5, 1.75, 1.0]
    assert RateRule(scale=2).factor(1, 1) == 2
    assert RateRule(scale=2, hold=0).factor(1, 1) == 1
    assert RateRule(scale=8, warm_up=0.5, hold=0.5).factor(1, 1) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"scale": 0},
        {"scale": float("nan")},
        {"scale": 2, "warm_up": 0.6, "hold": 0.5},
        {"scale": 2, "hold": 2},
    ],
)
def test_a_rule_that_cannot_be_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        RateRule(**values)


def test_caffe_solvers_follow_the_rule() -> None:
    """At a steady factor weights are those of a solver with so many times the rate; the rate is reported."""
    fourfold = trained(lenet(), RateRule(scale=4))
    as_much = trained(lenet(4 * lenet().solver.base_lr), None)
    assert digest(fourfold[-1].weights) == digest(as_much[-1].weights)
    plain = trained(lenet(), None)
    ratios = [a.lr / b.lr for a, b in zip(trained(lenet(), RULE), plain, strict=True)]
    assert ratios == pytest.approx([RULE.factor(number, 8) for number in range(1, 9)])


def test_torch_s_schedulers_go_by_the_rate_without_the_factor() -> None:
    """Beside torch's own optimiser and scheduler, whose rate is raised for each step and put back."""
    scheduler = partial(torch.optim.lr_scheduler.StepLR, step_size=3, gamma=0.5)
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    torch.manual_seed(1)
    replica = TorchReplica(small_net(), sgd, scheduler=scheduler)
    torch.manual_seed(1)
    net = small_net()
    optimizer = sgd(net.parameters())
    schedule = scheduler(optimizer)
    batches = [{"data": torch.randn(6, 1, 4, 4), "label": torch.arange(6) % 3} for _ in range(8)]
    for number, batch in enumerate(batches, 1):
        replica.rate_factor = RULE.factor(number, 8)
        replica.step(iter([batch]))
        rate = optimizer.param_groups[0]["lr"]
        optimizer.zero_grad()
        F.cross_entropy(net(batch["data"]), batch["label"]).backward()  # type: ignore[no-untyped-call]
        optimizer.param_groups[0]["lr"] = RULE.factor(number, 8) * rate
        assert replica.lr == pytest.approx(RULE.factor(number, 8) * rate)
        optimizer.step()
        optimizer.param_groups[0]["lr"] = rate
        schedule.step()
    expected = torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
    assert torch.equal(replica.weights, expected)


def test_a_run_that_goes_on_has_the_rates_of_the_one_that_was_not_stopped() -> None:
    settings = Settings(rounds=6, tau=2, rate=RULE)
    with LocalWorkers(small_recipe(), SHARDS) as workers:
        whole = list(train(workers, settings))
    with LocalWorkers(small_recipe(), SHARDS) as workers:
        half = next(done for done in train(workers, settings) if done.number == 3)
        states = workers.states()
    with LocalWorkers(small_recipe(), SHARDS) as workers:
        workers.restore(states)
        rest = list(train(workers, settings, weights=half.weights, done=3, lr=half.lr))
    assert [done.lr for done in rest] == [done.lr for done in whole[3:]]
    assert len({done.lr for done in whole}) == 4
    assert digest(rest[-1].weights) == digest(whole[-1].weights)


def test_a_replica_without_a_factor_refuses_to_train_at_another_rate() -> None:
    recipe = Recipe(replica=lambda: Scaling(4), batch_size=1, transform=Transform())
    worker = recipe.worker(0, SHARDS[0])
    worker.train(worker.vector, RoundPlan(tau=1))
    with pytest.raises(UsageError, match="Scaling has no rate_factor"):
        worker.train(worker.vector, RoundPlan(tau=1, rate=2))


def test_the_rule_is_for_sgd() -> None:
    assert is_sgd(lenet())
    adam = lenet()
    adam.solver.type = "Adam"
    assert not is_sgd(adam)
    assert is_sgd(TorchModel(module=small_net, optimizer="sgd", lr=0.1))
    assert not is_sgd(TorchModel(module=small_net, optimizer="adam"))
