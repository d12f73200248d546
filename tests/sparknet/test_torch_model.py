"""Any module as a replica: torch's optimisers and schedulers, frozen parts, published weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

from sparknet.data.dataset import Batch
from sparknet.errors import ModelError, UsageError
from sparknet.objectives import Objective
from sparknet.replica import TorchReplica
from sparknet.torch_model import TorchModel, load_weights


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return (self.left(left) * self.right(right)).sum(1, keepdim=True)


def net() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


def batches(count: int) -> list[Batch]:
    made = torch.Generator().manual_seed(3)
    return [
        {"data": torch.randn(16, 3, generator=made), "label": torch.randn(16, generator=made)}
        for _ in range(count)
    ]


def replica(**options: Any) -> TorchReplica:
    settings = {"optimizer": "sgd", "lr": 0.1, "objective": Objective(loss="mse"), "device": "cpu", **options}
    return TorchModel(module=net, **settings)()


def run(trained: TorchReplica, count: int) -> list[float]:
    data: Iterator[Batch] = iter(batches(count))
    return [float(trained.step(data)) for _ in range(count)]


@pytest.mark.parametrize(
    "make",
    [
        lambda o: StepLR(o, 2, 0.5),
        lambda o: CosineAnnealingLR(o, 9),
        lambda o: OneCycleLR(o, 0.2, total_steps=20),
    ],
    ids=["steps", "cosine", "one cycle"],
)
def test_a_scheduler_of_torchs_gives_the_rates_of_a_plain_loop(make: Callable[..., Any]) -> None:
    module = net()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    scheduler, expected = make(optimizer), []
    for batch in batches(6):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        nn.functional.mse_loss(module(batch["data"])[:, 0], batch["label"]).backward()
        optimizer.step()
        scheduler.step()
    trained, rates = replica(scheduler=make), []
    data = iter(batches(6))
    for _ in range(6):
        trained.step(data)
        rates.append(trained.lr)
    assert rates == expected
    assert torch.equal(trained.weights[:24], next(module.parameters()).detach().flatten())


def test_a_worker_that_takes_over_goes_on_with_the_rate_of_that_step() -> None:
    make = partial(CosineAnnealingLR, T_max=9)
    first, second = replica(scheduler=make), replica(scheduler=make)
    run(first, 5)
    second.iteration = 5
    run(first, 1)
    run(second, 1)
    assert second.lr == pytest.approx(first.lr, rel=1e-12)
    assert second.iteration == first.iteration == 6


def test_a_scheduler_that_waits_for_a_metric_is_refused() -> None:
    with pytest.raises(UsageError, match="ReduceLROnPlateau waits for a metric"):
        replica(scheduler=ReduceLROnPlateau)


def test_gradients_are_clipped_as_torch_clips_them() -> None:
    module = net()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for batch in batches(3):
        optimizer.zero_grad()
        nn.functional.mse_loss(module(batch["data"])[:, 0], batch["label"]).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 0.01)
        optimizer.step()
    trained = replica(clip_norm=0.01)
    run(trained, 3)
    assert torch.equal(trained.weights[:24], next(module.parameters()).detach().flatten())


def test_what_is_frozen_stays_bit_for_bit_running_statistics_included() -> None:
    trained = replica(freeze=("0.*", "1.*"), optimizer="adam")
    before = trained.weights.clone()
    run(trained, 4)
    moved = {
        slot.name for slot in trained.layout
        if not torch.equal(trained.weights[slot.offset : slot.end], before[slot.offset : slot.end])
    }  # fmt: skip
    assert moved == {"3.weight", "3.bias"}


@pytest.mark.parametrize(
    ("patterns", "says"), [(("conv.*",), "no parameter is named"), (("*",), "nothing to train")]
)
def test_freezing_what_is_not_there_or_all_there_is_is_refused(patterns: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        replica(freeze=patterns)


def test_several_inputs_go_by_their_names() -> None:
    model = TorchModel(module=TwoInputs, objective=Objective(loss="mse"), device="cpu")
    batch = {"right": torch.randn(5, 2), "left": torch.randn(5, 3), "label": torch.randn(5)}
    built = model()
    expected = built.module(left=batch["left"], right=batch["right"])[:, 0].detach()
    loss = float(((expected - batch["label"]) ** 2).mean())
    assert float(built.step(iter([batch]))) == pytest.approx(loss)


@pytest.mark.parametrize(
    "optimizer",
    ["SGD", torch.optim.SGD, partial(torch.optim.SGD, momentum=0.0), lambda p, lr: torch.optim.SGD(p, lr)],
)
def test_an_optimizer_may_be_a_name_a_class_or_a_function(optimizer: Any) -> None:
    assert run(replica(optimizer=optimizer), 3) == run(replica(), 3)


@pytest.mark.parametrize(("name", "says"), [("sdg", "there is no optimizer 'sdg'"), ("lbfgs", "LBFGS")])
def test_an_optimizer_that_cannot_be_is_refused(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        replica(optimizer=name)


def test_weights_with_names_and_shapes_of_the_net_are_taken_and_others_left(tmp_path: Path) -> None:
    published = {name: torch.full_like(tensor, 2.0) for name, tensor in net().state_dict().items()}
    published["3.weight"] = torch.zeros(5, 8)  # a head for other classes
    torch.save(published, tmp_path / "published.pt")
    module = net()
    kept = module.state_dict()["3.weight"].clone()
    taken = load_weights(module, tmp_path / "published.pt")
    assert "0.weight" in taken
    assert "3.weight" not in taken
    assert torch.all(module.state_dict()["0.weight"] == 2)
    assert torch.equal(module.state_dict()["3.weight"], kept)


def test_weights_of_another_net_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="none of the 1 tensors"):
        load_weights(net(), {"conv.weight": torch.zeros(3)})
    (tmp_path / "no.pt").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"no\.pt is no file of weights"):
        load_weights(net(), tmp_path / "no.pt")
