"""The mean gradient in every step: against torch and Caffe with the batches of all workers in one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import islice, repeat

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sparknet.caffe.net import Net
from sparknet.caffe.schema import TRAIN, SolverParameter, parse_net
from sparknet.caffe.solver import Solver
from sparknet.caffe_replica import CaffeModel, CaffeReplica
from sparknet.data.dataset import Batch
from sparknet.errors import ModelError, TrainingError, UsageError
from sparknet.gradients import Gradient, GradientReplica, pieces, unused_by_all
from sparknet.local import LocalWorkers
from sparknet.outer import SlowMo
from sparknet.replica import TorchReplica
from sparknet.training import Round, Settings, train
from tests.sparknet.distributed.fixtures import Paused, shards_of
from tests.sparknet.small import digest, momentum_sgd, small_net, small_recipe

STEPS = 12


def in_step(rounds: int = STEPS) -> Settings:
    return Settings(rounds=rounds, tau=1, gradients=True)


def adam(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01, weight_decay=0.01)  # type: ignore[arg-type]


def adagrad(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.Adagrad(parameters, lr=0.05)  # type: ignore[arg-type]


def trained(make: Callable[[], object], workers: int, settings: Settings | None = None) -> list[Round]:
    with LocalWorkers(small_recipe(replica=make), shards_of(workers)) as local:
        return list(train(local, settings or in_step()))


class Recorded:
    """Replicas of a net that keep the batches they have seen, by replica."""

    def __init__(self, optimizer: Callable[..., torch.optim.Optimizer], net: Callable[[], nn.Module]) -> None:
        self.optimizer, self.net = optimizer, net
        self.seen: list[list[tuple[torch.Tensor, torch.Tensor]]] = []

    def __call__(self) -> TorchReplica:
        batches: list[tuple[torch.Tensor, torch.Tensor]] = []
        module, inputs = self.net(), list[torch.Tensor]()
        module.register_forward_pre_hook(lambda _, given: inputs.append(given[0].clone()))

        def loss(output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            batches.append((inputs[-1], label.clone()))
            return F.cross_entropy(output, label)

        self.seen.append(batches)
        return TorchReplica(module, self.optimizer, loss=loss, clip_norm=0.5)

    def in_one(self) -> np.ndarray:
        """The weights of torch by itself, given in each step the batches of all in one."""
        torch.manual_seed(3)
        module = self.net()
        optimizer = self.optimizer(module.parameters())
        for batches in zip(*self.seen, strict=True):
            optimizer.zero_grad()
            output = module(torch.cat([data for data, _ in batches]))
            F.cross_entropy(output, torch.cat([label for _, label in batches])).backward()
            nn.utils.clip_grad_norm_(module.parameters(), 0.5)
            optimizer.step()
        return torch.cat([p.detach().flatten() for p in module.parameters()]).numpy()


@pytest.mark.parametrize("optimizer", [momentum_sgd, adam, adagrad])
@pytest.mark.parametrize("workers", [2, 3])
def test_a_step_of_all_is_a_step_of_torch_with_their_batches_in_one(
    workers: int, optimizer: Callable[..., torch.optim.Optimizer]
) -> None:
    recorded = Recorded(optimizer, small_net)
    done = trained(recorded, workers)
    assert np.abs(done[-1].weights - recorded.in_one()).max() < 2e-6


@pytest.mark.parametrize(("optimizer", "is_same"), [(momentum_sgd, True), (adam, False)])
def test_averaging_weights_after_a_step_is_the_same_for_sgd_and_is_not_for_adam(
    optimizer: Callable[..., torch.optim.Optimizer], is_same: bool
) -> None:
    def make() -> TorchReplica:
        return TorchReplica(small_net(), optimizer)

    by_gradients, by_weights = trained(make, 3), trained(make, 3, Settings(rounds=STEPS, tau=1))
    far = np.abs(by_gradients[-1].weights - by_weights[-1].weights).max()
    assert (far < 2e-6) == is_same
    assert is_same or far > 1e-3


def shared_net() -> str:
    """Two layers with the same weights, a BatchNorm, and a layer that learns nothing."""
    layer = (
        'layer { name: "%s" type: "InnerProduct" bottom: "%s" top: "%s" inner_product_param { num_output: %d'
    )
    same = 'param { name: "w" } param { name: "b" }'
    return f"""
    layer {{ name: "data" type: "Input" top: "data" top: "label"
             input_param {{ shape {{ dim: 10 dim: 1 dim: 4 dim: 4 }} shape {{ dim: 10 }} }} }}
    {layer % ("first", "data", "first", 12)} weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "bn" type: "BatchNorm" bottom: "first" top: "first" }}
    {layer % ("one", "first", "one", 12)} weight_filler {{ type: "xavier" }} }} {same} }}
    layer {{ name: "tanh" type: "TanH" bottom: "one" top: "one" }}
    {layer % ("still", "one", "still", 12)} weight_filler {{ type: "xavier" }} }}
        param {{ lr_mult: 0 }} param {{ lr_mult: 0 }} }}
    {layer % ("two", "still", "two", 12)} }} {same} }}
    {layer % ("last", "two", "last", 3)} weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "last" bottom: "label" top: "loss" }}
    """


def caffe(text: str, precision: str = "float32", **options: object) -> CaffeModel:
    settings = {"base_lr": 0.05, "momentum": 0.9, "weight_decay": 0.004, "type": "SGD", "lr_policy": "fixed"}
    if options.get("type") not in (None, "SGD", "Nesterov", "Adam"):
        settings["momentum"] = 0.0
    solver = SolverParameter(**{**settings, **options})  # type: ignore[arg-type]
    return CaffeModel(net=parse_net(text), solver=solver, precision=precision)


PLAIN = shared_net().replace('layer { name: "bn" type: "BatchNorm" bottom: "first" top: "first" }', "")

SOLVERS: list[dict[str, object]] = [
    {},
    {"clip_gradients": 0.1},
    {"iter_size": 2, "clip_gradients": 0.1},
    {"regularization_type": "L1"},
    {"type": "Adam", "momentum2": 0.999},
    {"type": "AdaGrad"},
]


@pytest.mark.parametrize("options", SOLVERS, ids=str)
@pytest.mark.parametrize("workers", [2, 3])
def test_a_step_of_all_is_an_iteration_of_caffe_s_solver_with_as_many_sub_batches(
    workers: int, options: dict[str, object]
) -> None:
    """``iter_size`` K adds the gradients of K batches up and divides by K: their mean. Its clipping is by the
    norm of the sum, so the limit is that of a sum too."""
    model = caffe(PLAIN, **options)

    class Recording(CaffeReplica):
        def compute(self, batches: Iterator[Batch], on_final: Callable[[int], object]) -> torch.Tensor:
            mine = list(islice(batches, self.batches_per_step))
            taken.setdefault(id(self), []).extend({k: v.clone() for k, v in each.items()} for each in mine)
            return super().compute(iter(mine), on_final)

    taken: dict[int, list[dict[str, torch.Tensor]]] = {}
    done = trained(lambda: Recording(model.net, model.solver), workers)
    each = int(options.get("iter_size", 1))  # type: ignore[call-overload]
    seen = list(taken.values())
    in_turn = (batch for step in range(STEPS) for mine in seen for batch in mine[each * step :][:each])
    torch.manual_seed(3)
    solver = SolverParameter()
    solver.CopyFrom(model.solver)
    solver.iter_size = each * workers
    if "clip_gradients" in options:
        solver.clip_gradients *= workers
    alone = Solver(solver, Net(model.net, TRAIN))
    alone.step(STEPS, lambda: next(in_turn))
    assert np.abs(done[-1].weights - alone.net.weights.numpy()).max() < 2e-6


@pytest.mark.parametrize("options", SOLVERS, ids=str)
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_one_caffe_worker_is_serial_bit_for_bit(precision: str, options: dict[str, object]) -> None:
    model = caffe(shared_net(), precision, **options)
    together, alone = trained(model, 1), trained(model, 1, Settings(rounds=STEPS, tau=1))
    assert digest(together[-1].weights) == digest(alone[-1].weights)
    assert [(r.loss, r.lr) for r in together] == [(r.loss, r.lr) for r in alone]


@pytest.mark.parametrize("optimizer", [momentum_sgd, adam])
def test_one_torch_worker_is_serial_bit_for_bit(optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    def make() -> TorchReplica:
        schedule = torch.optim.lr_scheduler.StepLR
        return TorchReplica(
            normed(), optimizer, scheduler=lambda made: schedule(made, 4), clip_norm=0.1, clip_value=0.01
        )

    together, alone = trained(make, 1), trained(make, 1, Settings(rounds=STEPS, tau=1))
    assert digest(together[-1].weights) == digest(alone[-1].weights)
    assert [(r.loss, r.lr) for r in together] == [(r.loss, r.lr) for r in alone]


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 3), nn.Softplus()
    )


def test_all_replicas_hold_the_same_weights_statistics_and_history() -> None:
    with LocalWorkers(small_recipe(replica=lambda: TorchReplica(normed(), adam)), shards_of(3)) as local:
        list(train(local, in_step()))
        assert len({digest(worker.vector) for worker in local.workers}) == 1
        assert len({digest(worker.replica.history().numpy()) for worker in local.workers}) == 1


class Forked(nn.Module):
    """A branch that only batches that begin with a large number go through, and one that none does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.sometimes, self.never = nn.Linear(16, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.first(images.flatten(1))
        hidden = self.sometimes(hidden) if images.flatten()[0] > 0.5 else hidden
        return self.last(hidden.tanh())


@pytest.mark.parametrize("optimizer", [momentum_sgd, adam])
def test_parameters_that_no_worker_used_have_no_step_and_those_that_one_did_have(
    optimizer: Callable[..., torch.optim.Optimizer],
) -> None:
    torch.manual_seed(3)
    alone = Forked()
    replicas = []
    for _ in range(2):
        module = Forked()
        module.load_state_dict(alone.state_dict())
        replicas.append(TorchReplica(module, optimizer))
    theirs = optimizer(alone.parameters())
    drawn = torch.Generator().manual_seed(0)
    for step in range(6):
        batches = []
        for worker in range(2):
            images = torch.rand(10, 16, generator=drawn)
            images[0, 0] = float(step in (1, 4) and worker == 1)
            batches.append({"data": images, "label": torch.randint(0, 3, (10,), generator=drawn)})
        together([Gradient(replica) for replica in replicas], batches)
        theirs.zero_grad()
        losses = [F.cross_entropy(alone(batch["data"]), batch["label"]) for batch in batches]
        (sum(losses) / 2).backward()
        theirs.step()
        for (name, mine), their in zip(
            replicas[0].module.named_parameters(), alone.parameters(), strict=True
        ):
            assert torch.allclose(mine, their, atol=1e-6, rtol=0), (step, name)


def together(gradients: list[Gradient], batches: list[Batch]) -> None:
    """A step of all: the mean of their gradients, computed by torch."""
    for gradient, batch in zip(gradients, batches, strict=True):
        gradient.begin()
        gradient.compute(iter([batch]))
        gradient.bring_all()
    mean = torch.stack([torch.from_numpy(g.vector).double() for g in gradients]).mean(0).float().numpy()
    for gradient in gradients:
        gradient.take(mean, unused_by_all(each.unused for each in gradients))


class InChannelsLast(nn.Module):
    """Its weights are used, and their gradients come, in another memory format than they lie in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4 * 6 * 6, 3)
        self.conv.weight.register_hook(lambda g: g.contiguous(memory_format=torch.channels_last))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = self.conv.weight.contiguous(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
        return self.last(F.conv2d(images, weight, self.conv.bias).flatten(1))


def test_gradients_in_another_memory_format_add_up_element_by_element() -> None:
    """One replica is contiguous, the other channels_last: a sum in memory order would be garbage."""
    torch.manual_seed(0)
    first = InChannelsLast()
    second = copy.deepcopy(first)
    second.to(memory_format=torch.channels_last)
    oracle = copy.deepcopy(first).double()
    draw = torch.Generator().manual_seed(1)
    batches = [
        {"data": torch.randn(5, 3, 8, 8, generator=draw), "label": torch.randint(0, 3, (5,), generator=draw)}
        for _ in range(2)
    ]
    replicas = [TorchReplica(module, momentum_sgd) for module in (first, second)]
    together([Gradient(replica) for replica in replicas], batches)
    optimizer = momentum_sgd(oracle.parameters())
    losses = [F.cross_entropy(oracle(b["data"].double()), b["label"]) for b in batches]
    (sum(losses) / 2).backward()
    optimizer.step()
    for replica in replicas:
        for mine, theirs in zip(replica.module.parameters(), oracle.parameters(), strict=True):
            assert torch.allclose(mine.double(), theirs, atol=1e-6)


def finals(replica: GradientReplica, batch: Batch) -> list[int]:
    """The places that ``on_final`` was told, having checked that nothing behind them changed any more."""
    told: list[tuple[int, torch.Tensor]] = []
    replica.compute(repeat(batch), lambda place: told.append((place, replica.gradients[place:].clone())))
    for place, then in told:
        assert torch.equal(then, replica.gradients[place:])
    places = [place for place, _ in told]
    assert places == sorted(places, reverse=True)
    assert places[-1] == 0
    return places


def test_what_caffe_says_is_final_changes_no_more_in_the_last_sub_batch() -> None:
    model = caffe(shared_net(), iter_size=2)
    batch = {"data": torch.randn(10, 1, 4, 4), "label": torch.randint(0, 3, (10,)).float()}
    places = finals(model(), batch)
    # the shared blob lies with its first layer, and is final when that has run
    layout = {slot.name: slot.offset for slot in model().layout}
    assert layout["last/0"] in places
    assert layout["one/0"] in places
    assert len(set(places)) > 4


@pytest.mark.parametrize("make", [small_net, normed, Forked])
def test_what_torch_says_is_final_changes_no_more(make: Callable[[], nn.Module]) -> None:
    batch = {"data": torch.rand(10, 1, 4, 4) / 4, "label": torch.randint(0, 3, (10,))}
    replica = TorchReplica(make(), momentum_sgd)
    assert len(set(finals(replica, batch))) > 1
    assert finals(replica, batch) == finals(replica, batch)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_averages_gradients_without_the_scale(precision: str) -> None:
    exact, low = trained(caffe(PLAIN), 3), trained(caffe(PLAIN, precision), 3)
    assert np.abs(exact[-1].weights - low[-1].weights).max() < 0.02


def test_a_step_in_which_a_gradient_overflows_in_fp16_is_left_out_by_all() -> None:
    with LocalWorkers(small_recipe(replica=caffe(PLAIN, "fp16")), shards_of(2)) as local:
        rounds = train(local, in_step(3))
        first = next(rounds).weights.copy()
        solvers = [worker.replica.solver for worker in local.workers]  # type: ignore[attr-defined]
        solvers[1].loss_scale.value = 2.0**126  # of a worker that came later
        second = next(rounds)
    assert digest(second.weights) == digest(first)
    assert second.members == (0, 1)
    assert [solver.loss_scale.value for solver in solvers] == [2.0**15, 2.0**125]
    assert [solver.iter for solver in solvers] == [2, 2]


def test_a_gradient_that_is_no_number_is_left_out_and_its_worker_goes_on_with_the_others() -> None:
    class Once(TorchReplica):
        spoils = False

        def _backward(self, batches: Iterator[Batch]) -> torch.Tensor:
            loss = super()._backward(batches)
            if self.spoils and self.iteration == 2:
                next(self.module.parameters()).grad.fill_(torch.nan)  # type: ignore[union-attr]
                self.gradients[0] = torch.nan
            return loss

    with LocalWorkers(small_recipe(replica=lambda: Once(small_net(), momentum_sgd)), shards_of(3)) as local:
        local.workers[1].replica.spoils = True  # type: ignore[attr-defined]
        done = list(train(local, in_step(5)))
        assert len({digest(worker.vector) for worker in local.workers}) == 1
    assert [r.members for r in done] == [(0, 1, 2), (0, 1, 2), (0, 2), (0, 1, 2), (0, 1, 2)]
    assert "not numbers" in done[2].result.lost[0]


def test_gradients_that_are_no_numbers_anywhere_end_training() -> None:
    def make() -> TorchReplica:
        return TorchReplica(small_net(), momentum_sgd, loss=lambda output, _: output.sum() * torch.nan)

    with pytest.raises(TrainingError, match="training diverged"):
        trained(make, 2)


def test_replicas_that_take_a_step_in_one_piece_are_refused() -> None:
    class Own:
        """No gradient to be had."""

        def __init__(self) -> None:
            replica = TorchReplica(small_net(), momentum_sgd)
            self.layout, self.weights, self.statistics = replica.layout, replica.weights, replica.statistics
            self.batches_per_step, self.iteration, self.step = 1, 0, replica.step

    for make in (Own, lambda: Paused(small_net(), momentum_sgd)):
        with pytest.raises(UsageError, match="has a step in one piece: give it compute and apply"):
            trained(make, 2)


def test_sparse_gradients_are_refused() -> None:
    module = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Flatten(), nn.Linear(8, 3))
    replica = TorchReplica(module, lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    batch = {"data": torch.randint(0, 9, (5, 2)), "label": torch.randint(0, 3, (5,))}
    with pytest.raises(ModelError, match=r"the gradient of 0.weight is sparse"):
        replica.compute(iter([batch]), lambda _: None)


def test_gradients_that_are_added_to_after_they_may_have_been_sent_are_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Linear(16, 16)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            hidden = images.flatten(1).requires_grad_()
            for _ in range(2):
                hidden = checkpoint(self.same, hidden, use_reentrant=True)
            return hidden

    replica = TorchReplica(Twice(), momentum_sgd)
    batch = {"data": torch.rand(5, 1, 4, 4), "label": torch.randint(0, 3, (5,))}
    with pytest.raises(ModelError, match=r"the gradient of same.\w+ is added to in parts"):
        replica.compute(iter([batch]), lambda _: None)


@pytest.mark.parametrize(
    "options", [{"tau": 2}, {"overlap": True}, {"momentum": "average"}, {"momentum": "reset"}]
)
def test_settings_that_cannot_be_with_gradients_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="where gradients are averaged in every step"):
        Settings(**{"rounds": 1, "tau": 1, "gradients": True, **options})  # type: ignore[arg-type]


def test_an_outer_optimiser_is_refused() -> None:
    with (
        LocalWorkers(small_recipe(), shards_of(2)) as local,
        pytest.raises(UsageError, match="an outer optimiser is for averages of weights"),
    ):
        next(train(local, in_step(), SlowMo()))


@pytest.mark.parametrize(("least", "largest"), [(1, 5), (7, 9), (100, 1000), (3, 3)])
def test_pieces_are_all_there_is_from_its_end_to_its_beginning(least: int, largest: int) -> None:
    parts = [slice(0, 4), slice(4, 5), slice(5, 30), slice(33, 34), slice(34, 60)]
    found = pieces(parts, least, largest)
    elements = [k for part in reversed(found) for k in range(part.start, part.stop)]
    assert elements == [k for part in parts for k in range(part.start, part.stop)]
    assert all(0 < part.stop - part.start <= largest for part in found)
    assert all(later.start >= part.stop for part, later in zip(found[1:], found, strict=False))


def test_what_is_frozen_does_not_travel() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Linear(12, 3))
    module[1].requires_grad_(False)
    gradient = Gradient(TorchReplica(module, momentum_sgd))
    assert pieces(gradient.travelling, 1, 1000)[-1].start == 16 * 12 + 12
    assert Gradient(caffe(shared_net())()).travelling[-1].stop == caffe(shared_net())().layout.size
    names = {slot.offset: slot.name for slot in caffe(shared_net())().layout}
    travelling = {names[part.start] for part in Gradient(caffe(shared_net())()).travelling}
    assert set(names.values()) - travelling == {"still/0", "still/1"}
