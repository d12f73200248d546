"""The table of settings in a run's report."""

from __future__ import annotations

from typing import Any

from sparknet.algorithms import ALGORITHMS, Algorithm, value_text
from sparknet.caffe_replica import CaffeModel
from sparknet.torch_model import TorchModel
from sparknet.training import Settings


def name_of(model: CaffeModel | TorchModel) -> str:
    """What a report calls the net."""
    return model.net.name if isinstance(model, CaffeModel) else model.name


def settings_table(
    trainer: Any,
    model: CaffeModel | TorchModel,
    settings: Settings,
    workers: int,
    replica: Any,
    *,
    chosen: Algorithm,
    exchange: str,
) -> dict[str, str]:
    """(name, value) text, in the order in which it is shown, of a ``Trainer`` and what it has made.

    ``chosen`` is the algorithm in force and ``exchange`` how weights travel, where the trainer leaves them
    open.
    """
    cluster = trainer.cluster
    return {
        **({"data": trainer.origin} if trainer.origin else {}),
        **_of_net(trainer, model),
        "workers": f"{_count(workers, 'worker')}, {_count(replica.threads, 'thread')} each",
        "batch size": f"{trainer.batch_size} for each worker and step",
        "tau": f"{settings.tau} steps a round" + (", overlapped" if settings.overlap else ""),
        "time cap": f"{trainer.time_cap:g} s a round" if trainer.time_cap else "none",
        "rounds": str(settings.rounds),
        "sampling": trainer.sampling,
        **({"learning rate of the rounds": str(settings.rate)} if settings.rate else {}),
        "algorithm": f"{_algorithm(trainer, chosen)}, momentum: {settings.momentum}",
        "seed": str(trainer.seed),
        "precision": getattr(model, "precision", "float32")
        + (", deterministic" if cluster.deterministic else ""),
        "exchange of weights": f"{_asked(cluster.exchange, exchange)}, {cluster.wire}"
        + (f", in {cluster.fragments} parts" if cluster.fragments > 1 else ""),
        "a round waits for": _stragglers(trainer),
    }


def _of_net(trainer: Any, model: CaffeModel | TorchModel) -> dict[str, str]:
    if isinstance(model, CaffeModel):
        solver = model.solver
        return {
            "net and solver": f"{model.net.name}, {trainer.model_name}",
            "learning rate": f"{solver.base_lr:g}, {solver.lr_policy}",
            "momentum, weight decay": f"{solver.momentum:g}, {solver.weight_decay:g}",
        }
    rate = "" if model.lr is None else f", learning rate {model.lr:g}"
    return {
        "net": model.name,
        "loss": _name(model.objective.loss),
        "optimizer": _name(model.optimizer) + rate,
    }


def _algorithm(trainer: Any, chosen: Algorithm) -> str:
    """Its name, what it takes where that depends on the workers, and its options."""
    asked = trainer.algorithm
    name = asked if isinstance(asked, str) else asked.summary
    if trainer.outer:
        return f"{name}, outer step: {_name(trainer.outer)}"
    taken = next((known for known, each in ALGORITHMS.items() if each.summary == chosen.summary), name)
    options = [f"{key} {value_text(value)}" for key, value in chosen.options.items()]
    return ", ".join([_asked(name, taken), *options])


def _asked(asked: str, taken: str) -> str:
    """What was asked for, and what is in force where that is something else."""
    return asked if asked == taken else f"{asked}: {taken}"


def _stragglers(trainer: Any) -> str:
    timeouts = trainer.cluster.timeouts
    if timeouts.quorum == 1:
        return f"all workers, {timeouts.round:g} s at most"
    grace = "a quarter as long" if timeouts.grace is None else f"{timeouts.grace:g} s"
    return f"{timeouts.quorum:.0%} of the workers, then {grace} for the others"


def _name(function: Any) -> str:
    return function if isinstance(function, str) else getattr(function, "__name__", type(function).__name__)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
