"""What a worker gives to an average of gradients, and what it takes from it.

    compute ──> its gradient ──┐
                               ├──> the mean ──> apply: the same step everywhere
                the others' ───┘

Synchronous SGD: all replicas hold the same weights and the same optimiser's memory, and each takes in every
step the step that the mean gradient asks for (arXiv 1604.00981). A gradient becomes final from the net's end
to its beginning, so that parts of it travel while the rest is computed (arXiv 2006.15704).

All vectors are float32 (P,), laid out as the weights are. Where something is trained they hold its gradient,
where a forward pass moves something by itself (running means and variances) the value that it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from sparknet.data.dataset import Batch
from sparknet.errors import UsageError
from sparknet.merge import norm
from sparknet.weights import Vector, squares

OnFinal = Callable[[int], object]
"""Is told from which place in the vector on all gradients are what they will be; the places descend to 0."""


@runtime_checkable
class GradientReplica(Protocol):
    """A replica (``replica.py``) whose step has two halves: between them its gradient can be averaged.

    ``gradients`` float32 (P,) lies where the weights do. ``trained`` says where in the vector there is a
    gradient, parameter by parameter, ``moving`` where a forward pass moves values by itself.
    ``loss_scale`` is by what gradients are too large, None if they are not: then those that overflow are
    left to ``apply``, which leaves such a step out.
    """

    weights: torch.Tensor
    gradients: torch.Tensor
    trained: Sequence[slice]
    moving: Sequence[slice]

    @property
    def loss_scale(self) -> float | None: ...

    @property
    def unused(self) -> tuple[int, ...]:
        """The numbers of those parameters in ``trained`` that the last loss did not depend on."""
        ...

    def compute(self, batches: Iterator[Batch], on_final: OnFinal) -> torch.Tensor:
        """The gradient of a step, in ``gradients``; returns its loss, a 0-d tensor on any device.

        ``on_final`` may be called by any thread. Nothing that is trained moves.
        """
        ...

    def apply(self, unused: Sequence[int] = ()) -> None:
        """The step that ``gradients`` ask for, which are not scaled; parameters that are ``unused`` stay."""
        ...


def gives_gradients(replica: object) -> bool:
    """Whether ``compute`` and ``apply`` are the halves of what its ``step`` does: not if a subclass has a
    step of its own, and their halves are another class's."""
    return isinstance(replica, GradientReplica) and issubclass(
        _where(type(replica), "compute"), _where(type(replica), "step")
    )


def giving_gradients(replica: object) -> GradientReplica:
    """The replica. Raises UsageError for one that takes its steps in one piece."""
    if not gives_gradients(replica):
        raise UsageError(
            f"the mean gradient is taken between the two halves of a step, and {type(replica).__name__} has "
            "a step in one piece: give it compute and apply (sparknet/gradients.py), or take --algorithm "
            "average --tau 1, which averages weights"
        )
    assert isinstance(replica, GradientReplica)
    return replica


def unused_by_all(unused: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """The numbers of the parameters that no worker's loss depended on."""
    sets = [set(numbers) for numbers in unused]
    return tuple(sorted(set.intersection(*sets))) if sets else ()


class Gradient:
    """What passes between ``replica`` and an average.

    ``vector`` float32 (P,) is in host memory: the replica's own on a CPU. Only what is trained or moves is
    ever looked at. Raises UsageError for a replica that takes its steps in one piece.
    """

    def __init__(self, replica: object) -> None:
        self._replica = replica = giving_gradients(replica)
        self._is_copy = replica.gradients.device.type != "cpu"
        self._here = torch.empty_like(replica.gradients, device="cpu") if self._is_copy else replica.gradients
        self.vector: Vector = self._here.numpy()
        self._moving = list(replica.moving)
        self._moving_in: dict[tuple[int, int], list[slice]] = {}
        self._started_from: list[torch.Tensor] = []
        self.travelling = sorted([*replica.trained, *self._moving], key=lambda part: part.start)

    @property
    def unused(self) -> tuple[int, ...]:
        return self._replica.unused

    def compute(self, batches: Iterator[Batch], on_final: OnFinal = lambda _: None) -> torch.Tensor:
        """The replica's ``compute``."""
        return self._replica.compute(batches, on_final)

    def bring(self, part: slice) -> float:
        """Have ``vector`` hold this part, which is final; the sum of the squares of what it is."""
        replica, here = self._replica, self._here[part]
        if self._is_copy:
            here.copy_(replica.gradients[part])
        if replica.loss_scale is not None:
            here.mul_(1 / replica.loss_scale)
        for moving in self._moving_parts(part):
            self._here[moving].copy_(replica.weights[moving])
        return squares(self.vector[part])

    def bring_all(self) -> float:
        """As ``bring``, of all there is."""
        return sum(self.bring(part) for part in pieces(self.travelling, 1 << 20, 1 << 22))

    def take(self, mean: Vector | None, unused: Sequence[int] = ()) -> None:
        """Take the step of this mean; None if it is what ``vector`` holds."""
        replica, given = self._replica, self._here if mean is None else torch.from_numpy(mean)
        if mean is not None or self._is_copy:
            for part in joined(self.travelling):
                replica.gradients[part].copy_(given[part])
        for moving in self._moving:
            replica.weights[moving].copy_(given[moving])
            replica.gradients[moving].zero_()
        replica.apply(unused)
        self._started_from.clear()

    def begin(self) -> None:
        """A step starts from the weights that there are."""
        self._started_from = [self._replica.weights[part].cpu().clone() for part in self._moving]

    def start_of(self, weights: Vector) -> Vector:
        """The weights that the step started from, of those that there are."""
        start = weights.copy() if self._started_from else weights
        for part, values in zip(self._moving, self._started_from, strict=False):
            start[part] = values.numpy()
        return start

    def base(self) -> Vector:
        """What differences are from where fewer bits travel: no gradient, and the values before the step."""
        return self.start_of(np.zeros_like(self.vector))

    def moved(self, squared: float) -> float:
        """How far the worker wants to go, by the sum of the squares of its gradient; infinite if that is not
        a number. One that overflows where losses are scaled is not rejected: the step is left out by all."""
        distance = norm(squared)
        return 0.0 if self._replica.loss_scale is not None and not math.isfinite(distance) else distance

    def _moving_parts(self, part: slice) -> list[slice]:
        """What moves by itself within a part."""
        place = part.start, part.stop
        if place not in self._moving_in:
            both = [slice(max(m.start, part.start), min(m.stop, part.stop)) for m in self._moving]
            self._moving_in[place] = [each for each in both if each.start < each.stop]
        return self._moving_in[place]


def pieces(parts: Sequence[slice], least: int, largest: int) -> list[slice]:
    """``parts``, in ascending order, in pieces that are cut between two of them where that can be.

    A piece ends where it has ``least`` numbers, counted from the end, or where there is a gap, and has no
    more than ``largest``. From the last to the first.

    >>> pieces([slice(0, 2), slice(2, 3), slice(3, 9), slice(10, 11)], 3, 4)
    [slice(10, 11, None), slice(6, 9, None), slice(3, 6, None), slice(0, 3, None)]
    """
    found: list[slice] = []
    stop = None
    for number in range(len(parts) - 1, -1, -1):
        part = parts[number]
        stop = part.stop if stop is None else stop
        is_last = number == 0 or parts[number - 1].stop != part.start
        if is_last or stop - part.start >= least:
            found += _split(slice(part.start, stop), largest)
            stop = None
    return found


def joined(parts: Sequence[slice]) -> list[slice]:
    """``parts``, in ascending order, those that touch as one."""
    whole: list[slice] = []
    for part in parts:
        if whole and whole[-1].stop == part.start:
            whole[-1] = slice(whole[-1].start, part.stop)
        else:
            whole.append(part)
    return whole


def _split(piece: slice, largest: int) -> list[slice]:
    """In equal pieces of no more than ``largest`` numbers, the last first."""
    size = piece.stop - piece.start
    count = -(-size // largest)
    bounds = [piece.start + size * k // count for k in range(count + 1)] if count else []
    return [slice(low, high) for low, high in zip(bounds[-2::-1], bounds[:0:-1], strict=True)]


def _where(kind: type[Any], name: str) -> type[Any]:
    """The class that defines this attribute of ``kind``."""
    return next((each for each in kind.__mro__ if name in vars(each)), object)
