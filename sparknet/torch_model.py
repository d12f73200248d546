"""How to build the replica of any ``nn.Module``: what ``CaffeModel`` is for a Caffe net.

    model = TorchModel(module=make_net, optimizer="adam", lr=1e-3, objective=Objective(loss="mse"))
    replica = model()

Everything that may be a callable may be a lambda: Spark, by which models travel, pickles these.
"""

from __future__ import annotations

import copy
import fnmatch
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from sparknet.errors import ModelError, UsageError
from sparknet.objectives import Objective
from sparknet.replica import TorchReplica

log = logging.getLogger(__name__)

MakeOptimizer = str | type[torch.optim.Optimizer] | Callable[..., torch.optim.Optimizer]
MakeScheduler = Callable[[torch.optim.Optimizer], LRScheduler]


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchModel:
    """``module`` is a module, or a function that makes one; ``device`` a GPU if there is one, unless given.

    ``optimizer`` is the name of a class of ``torch.optim``, the class, or a function of the parameters;
    ``lr`` goes to it if it is given. ``freeze`` are patterns of parameters' names (``features.*``) that stay
    what they are. ``threads`` (0: as they are) are those the process computes with. Raises UsageError and
    ModelError for what cannot be.
    """

    module: nn.Module | Callable[[], nn.Module]
    optimizer: MakeOptimizer = "adam"
    lr: float | None = None
    objective: Objective = field(default_factory=Objective)
    scheduler: MakeScheduler | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    freeze: tuple[str, ...] = ()
    device: str = ""
    threads: int = 0

    def build(self) -> nn.Module:
        """The module as it is before training, of its own memory, on the CPU."""
        module = copy.deepcopy(self.module) if isinstance(self.module, nn.Module) else self.module()
        if not isinstance(module, nn.Module):
            raise UsageError(
                f"the model is a function that returns {type(module).__name__}: a torch.nn.Module is needed"
            )
        self._freeze(module)
        return module

    def __call__(self) -> TorchReplica:
        if self.threads:
            torch.set_num_threads(self.threads)
        return TorchReplica(
            self.build(),
            self._make_optimizer,
            loss=self.objective,
            scheduler=self.scheduler,
            clip_norm=self.clip_norm,
            clip_value=self.clip_value,
            device=self.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        )

    @property
    def name(self) -> str:
        """What reports call it."""
        made = self.module
        named = type(made).__name__ if isinstance(made, nn.Module) else getattr(made, "__name__", "")
        return named if named not in ("", "<lambda>") else "module"

    def _make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        given: Callable[..., torch.optim.Optimizer] | str = self.optimizer
        make = _optimizer_named(given) if isinstance(given, str) else given
        optimizer = make(parameters) if self.lr is None else make(parameters, lr=self.lr)
        if isinstance(optimizer, torch.optim.LBFGS):
            raise UsageError(
                "LBFGS computes a loss several times a step, which no round of steps can give it"
            )
        return optimizer

    def _freeze(self, module: nn.Module) -> None:
        parameters = dict(module.named_parameters())
        for pattern in self.freeze:
            found = fnmatch.filter(parameters, pattern)
            if not found:
                raise UsageError(
                    f"freeze: no parameter is named {pattern}; there are {', '.join(parameters)}"
                )
            for name in found:
                parameters[name].requires_grad_(False)
        if parameters and not any(parameter.requires_grad for parameter in parameters.values()):
            raise UsageError("every parameter is frozen: there is nothing to train")


def _optimizer_named(name: str) -> Callable[..., torch.optim.Optimizer]:
    kinds = {
        kind.lower(): value
        for kind, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    }
    if name.lower() not in kinds:
        raise UsageError(f"there is no optimizer {name!r} in torch.optim: {', '.join(sorted(kinds))}")
    return kinds[name.lower()]


def load_weights(module: nn.Module, weights: str | Path | Mapping[str, torch.Tensor]) -> list[str]:
    """Take the tensors of a state_dict, or of a file of one, whose names and shapes the module has.

    Returns their names. Others are left as they are: so a net with a head of its own starts from published
    weights. Raises ModelError if there is none, or for a file that is no state_dict.
    """
    state = _state(weights) if isinstance(weights, str | Path) else weights
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    taken = [name for name, tensor in state.items() if name in own and own[name].shape == tensor.shape]
    if not taken:
        raise ModelError(
            f"none of the {len(state)} tensors of the weights has the name and shape of one of the net: they "
            f"are {', '.join(list(state)[:5])} ..., those of the net {', '.join(list(own)[:5])} ..."
        )
    with torch.no_grad():
        for name in taken:
            own[name].copy_(state[name])
    left = [name for name in own if name not in taken]
    if left:
        log.info("not among the weights, and left as the net makes them: %s", ", ".join(left))
    return taken


def _state(path: str | Path) -> Mapping[str, torch.Tensor]:
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"{path} is no file of weights that torch.save has written: {error}") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, Mapping) or not all(torch.is_tensor(tensor) for tensor in state.values()):
        raise ModelError(f"{path} holds no state_dict: names and tensors")
    return state
