"""Twenty iterations of each update rule on a small net, against the trajectories in ``tests/golden``.

The rules are held to Caffe's own numbers where the oracle is at hand; these hold them everywhere else. To let
them go another way: ``SPARKNET_REWRITE_GOLDEN=1 pytest tests/sparknet/caffe/test_trajectories.py``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from itertools import count
from pathlib import Path

import pytest
import torch

from sparknet.caffe.schema import parse_solver
from sparknet.caffe.solver import Solver

GOLDEN = Path(__file__).parents[3] / "golden" / "solver_trajectories.json"
REWRITE = bool(os.environ.get("SPARKNET_REWRITE_GOLDEN"))
MOMENTS = (1, 5, 20)

NET = """
net_param {
  layer { name: "in" type: "Input" top: "x" top: "label"
          input_param { shape { dim: [8, 5] } shape { dim: 8 } } }
  layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "h"
          param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 } inner_product_param { num_output: 4 } }
  layer { name: "tanh" type: "TanH" bottom: "h" top: "h" }
  layer { name: "ip2" type: "InnerProduct" bottom: "h" top: "y"
          param { lr_mult: 0.5 } param { decay_mult: 2 } inner_product_param { num_output: 3 } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" }
}
max_iter: 20 average_loss: 3 weight_decay: 0.01 gamma: 0.5 power: 0.75
"""

RUNS = {
    "SGD": 'type: "SGD" base_lr: 0.1 momentum: 0.9 lr_policy: "inv"',
    "Nesterov": 'type: "Nesterov" base_lr: 0.1 momentum: 0.9 lr_policy: "multistep" stepvalue: [4, 5, 12]',
    "AdaGrad": 'type: "AdaGrad" base_lr: 0.05 lr_policy: "step" stepsize: 7 clip_gradients: 0.3',
    "RMSProp": 'type: "RMSProp" base_lr: 0.01 rms_decay: 0.9 lr_policy: "exp" regularization_type: "L1"',
    "AdaDelta": 'type: "AdaDelta" base_lr: 1 momentum: 0.95 delta: 1e-6 lr_policy: "fixed" iter_size: 2',
    "Adam": 'type: "Adam" base_lr: 0.02 momentum: 0.9 lr_policy: "poly" iter_size: 3 clip_gradients: 0.5',
    "sigmoid": 'type: "SGD" base_lr: 0.1 lr_policy: "sigmoid" stepsize: 10',
}


def weights(size: int) -> torch.Tensor:
    return torch.sin(1.7 * torch.arange(size, dtype=torch.float32)) / 2


def batch(number: int) -> Mapping[str, torch.Tensor]:
    rows = torch.arange(number * 40, (number + 1) * 40, dtype=torch.float32).view(8, 5)
    return {"x": torch.cos(0.37 * rows * rows), "label": (rows[:, 0] * 0.6).floor() % 3}


def trajectory(settings: str) -> dict[str, list[float]]:
    """The weights at each of ``MOMENTS``, and the smoothed loss after all."""
    solver = Solver.for_param(parse_solver(NET + settings))
    solver.net.weights.copy_(weights(solver.net.layout.size))
    numbers = count()
    kept = {}
    for moment in MOMENTS:
        solver.step(moment - solver.iter, feed=lambda: batch(next(numbers)))
        kept[f"weights after {moment}"] = [round(x, 7) for x in solver.net.weights.tolist()]
    return {**kept, "loss": [round(solver.smoothed_loss, 7)]}


@cache
def golden() -> dict[str, dict[str, list[float]]]:
    if REWRITE:
        found = {name: trajectory(settings) for name, settings in RUNS.items()}
        GOLDEN.write_text(json.dumps(found, indent=0) + "\n")
    return json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_the_golden_way(name: str) -> None:
    expected, found = golden()[name], trajectory(RUNS[name])
    assert set(expected) == set(found)
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, abs=2e-6), key
