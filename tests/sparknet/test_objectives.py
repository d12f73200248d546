"""Losses and metrics by name and as callables, weighed and not, against torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparknet.errors import UsageError
from sparknet.objectives import Objective, check_weighted

SCORES = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 3, 2, 2, 1, 0])
WEIGHTS = torch.tensor([0.0, 1, 2, 0.5, 3, 1])


def own(output: Tensor, label: Tensor) -> Tensor:
    return (output[:, 0] - label).abs().mean()


def own_weighted(output: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    return ((output[:, 0] - label).abs() * weight).mean()


@pytest.mark.parametrize("loss", ["cross_entropy", F.cross_entropy, nn.CrossEntropyLoss()])
def test_a_loss_is_the_same_by_name_as_a_function_and_as_a_module(loss: Any) -> None:
    objective = Objective(loss=loss)
    assert objective.label_kind == "classes"
    assert objective(SCORES, {"label": LABELS}) == F.cross_entropy(SCORES, LABELS)
    weighted = objective(SCORES, {"label": LABELS, "weight": WEIGHTS})
    each = F.cross_entropy(SCORES, LABELS, reduction="none")
    assert weighted == pytest.approx(float((each * WEIGHTS).sum() / WEIGHTS.sum()))


def test_a_record_of_weight_two_counts_as_two_records() -> None:
    twice = torch.tensor([0, 1, 1, 2])
    objective = Objective(loss="mse")
    output, label = torch.randn(3), torch.randn(3)
    weighted = objective(output, {"label": label, "weight": torch.tensor([1.0, 2, 1])})
    assert weighted == pytest.approx(float(objective(output[twice], {"label": label[twice]})))


def test_outputs_of_one_number_are_not_spread_over_the_labels() -> None:
    output, label = torch.randn(5, 1), torch.randn(5)
    found = Objective(loss="mse", metrics=["mae"]).scores(output, {"label": label})
    assert found["loss"] == pytest.approx(float(((output[:, 0] - label) ** 2).sum()))
    assert found["mae"] == pytest.approx(float((output[:, 0] - label).abs().sum()))


def test_metrics_are_sums_over_the_records() -> None:
    def first(output: Tensor, label: Tensor) -> Tensor:
        return output[:, 0].mean()

    found = Objective(metrics=["accuracy", "top5", first]).scores(SCORES, {"label": LABELS})
    assert found["accuracy"] == (SCORES.argmax(1) == LABELS).sum()
    assert found["top5"] == 6
    assert found["first"] == pytest.approx(float(SCORES[:, 0].sum()))


def test_places_that_do_not_count_are_left_out_of_the_accuracy() -> None:
    scores = torch.tensor([[[5.0, 0, 0], [0, 5, 5]]])  # (1, 2 classes, 3 places): 0, 1, 1
    found = Objective(metrics=["accuracy"]).scores(scores, {"label": torch.tensor([[0, 0, -100]])})
    assert found["accuracy"] == pytest.approx(0.5)


def test_a_loss_without_labels_is_given_the_output_alone() -> None:
    found = Objective(loss=lambda output: output.square().mean())(SCORES, {})
    assert found == SCORES.square().mean()


def test_a_loss_of_ones_own_may_take_the_weights_itself() -> None:
    batch = {"label": LABELS, "weight": WEIGHTS}
    assert Objective(loss=own_weighted)(SCORES, batch) == own_weighted(SCORES, LABELS, WEIGHTS)
    check_weighted(own_weighted)
    check_weighted(F.mse_loss)
    check_weighted(nn.MSELoss())
    with pytest.raises(UsageError, match="the loss own cannot weigh records"):
        check_weighted(own)


@pytest.mark.parametrize("given", [{"loss": "hinge"}, {"metrics": ["bleu"]}])
def test_names_that_there_are_not_are_refused_with_those_that_there_are(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"there is no (loss|metric).*(cross_entropy|accuracy)"):
        Objective(**given)
