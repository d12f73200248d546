"""A worker: one replica of a net, the shards it learns from, and the order it reads them in.

    Recipe ── builds ──> Worker ── drives ──> Replica     a net and its optimiser: Caffe's, or any nn.Module
                           └── reads ───────> ShardReader its shard (or shards), through sampler and transform

A recipe is what travels to an executor; workers never do. Every random number a worker draws is a function
of (seed, shard, step): where a worker runs, and after whom, changes nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from sparknet.data.dataset import Batch, Shard
from sparknet.data.feed import TARGETS, Ahead, Ready, Transforms, as_tensor, by_column, for_net
from sparknet.data.growable import spill_folder
from sparknet.data.records import Records
from sparknet.data.shard_reader import ShardReader, least_read
from sparknet.errors import DataError, ModelError, UsageError
from sparknet.notice import Notice
from sparknet.replica import Replica, Scalable
from sparknet.training import Report, RoundPlan, Scores, WorkerState
from sparknet.usage import Holding, Meter
from sparknet.weights import Vector

# Whoever seeds torch's generator, or asks for its state, holds a lock of the generator while waiting for
# Python's: two threads that do it at once could wait for each other for ever.
_GENERATOR = threading.RLock()

Step = Callable[[Iterator[Batch]], torch.Tensor]
"""Takes the batches of a step from the iterator; returns its loss, a 0-d tensor."""

# Test slices handed out at most: enough to share out evenly, few enough that handing out costs nothing.
_SLICES = 64


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to build workers that differ in their shard alone; must pickle if it is to go to a cluster.

    ``replica`` builds the net and its optimiser; it is called with torch seeded by ``seed``, so all start
    alike. ``deterministic`` has GPUs compute the same numbers every time, and torch raise RuntimeError where
    it knows no way to; on CPUs they always are. It is for the whole process, and for good.
    """

    replica: Callable[[], Replica]
    batch_size: int
    transform: Transforms
    test_batch_size: int = 0
    test_transform: Transforms | None = None
    sampling: str = "window"
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"the batch size is {self.batch_size}: at least 1 is needed")

    def build(self) -> Replica:
        if self.deterministic:
            # cuBLAS has a choice of algorithms unless its memory is laid out beforehand
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        with _GENERATOR, torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.replica()

    def worker(
        self, number: int, shard: Shard, replica: Replica | None = None, notice: Notice | None = None
    ) -> Worker:
        """The worker of shard ``number``, of a ``replica`` that has been built already or of a new one; one
        without records can only test. ``notice`` is that of its machine."""
        return Worker(replica or self.build(), shard, self, number, notice)

    def slices(self, records: int) -> list[slice]:
        """Cut a test set into whole test batches, the same whoever scores them."""
        batch = self.test_batch_size or self.batch_size
        size = batch * max(1, -(-records // (batch * _SLICES)))
        return [slice(start, min(start + size, records)) for start in range(0, records, size)]


class Worker:
    """Trains and tests one replica.

    ``vector`` float32 (P,) is where weights arrive and leave: the net's own memory on a CPU, a staging copy
    of it on a GPU. Whoever receives weights from elsewhere writes them there and passes it to ``train`` or
    ``test``; whoever wants those of the net asks ``bring`` for them. Otherwise they stay where they are.
    """

    def __init__(
        self, replica: Replica, shard: Shard, recipe: Recipe, number: int = 0, notice: Notice | None = None
    ) -> None:
        self.replica, self.recipe, self.number = replica, recipe, number
        self.notice = notice or Notice()
        self.readers: dict[int, ShardReader] = {}
        self._moved_on = False  # whether the net is not where vector is
        self._meter = Meter()
        self.add_shard(number, shard)

    @property
    def records(self) -> int:
        """Of all the shards it holds."""
        return sum(reader.records for reader in self.readers.values())

    def add_shard(self, number: int, shard: Shard, position: int = 0) -> None:
        """Train on shard ``number`` too from now on, which has been read up to ``position``.

        It is next in turn. One without records is left out.
        """
        if not len(shard):
            return
        recipe = self.recipe
        reader = ShardReader(
            number, shard, sampling=recipe.sampling, batch_size=recipe.batch_size, seed=recipe.seed
        )
        least = min((held.passes for held in self.readers.values()), default=0.0)
        reader.images, reader.sampler.position = int(least * reader.records), position
        self.readers[number] = reader

    def drop_shard(self, number: int) -> None:
        """Train on shard ``number`` no more; its memory is free again."""
        self.readers.pop(number, None)

    @cached_property
    def vector(self) -> Vector:
        # on a CPU neither cpu() nor numpy() copies
        vector: Vector = self.replica.weights.detach().cpu().numpy()
        return vector

    @cached_property
    def _staged(self) -> bool:
        """Whether ``vector`` is a copy."""
        return self.replica.weights.device.type != "cpu"

    def load(self, weights: Vector) -> None:
        """Give the net these weights, float32 (P,). Raises ModelError if they are another net's."""
        if weights is not self.vector:
            self.replica.layout.check(weights.size)
            np.copyto(self.vector, weights)
        if self._staged:
            self.replica.weights.copy_(torch.from_numpy(self.vector))
        self._moved_on = False

    def move_to(self, weights: torch.Tensor) -> None:
        """Give the net these weights, float32 (P,), which are on its device."""
        self.replica.weights.copy_(weights)
        self._moved_on = True

    def moved(self) -> None:
        """The net has been given other weights, where it is."""
        self._moved_on = True

    def bring(self) -> Vector:
        """The weights of the net, in ``vector``."""
        if self._moved_on and self._staged:
            torch.from_numpy(self.vector).copy_(self.replica.weights)
        self._moved_on = False
        return self.vector

    def train(self, weights: Vector | None, plan: RoundPlan, compute: Step | None = None) -> Report:
        """``plan.tau`` steps from ``weights``, fewer if the time cap comes first, or the end of its machine,
        never less than one.

        Without weights it goes on from those it has. With ``compute`` that is called in place of the
        replica's step, and what is reported is as if it were the whole of one: the rest of it is the
        caller's.
        """
        if not self.readers:
            raise DataError(f"worker {self.number} has no records to train on: use fewer workers")
        started = time.perf_counter()
        if weights is not None:
            self.load(weights)
        if plan.momentum == "reset":
            self.replica.restore_history(torch.empty(0))
        self._set_rate(plan.rate)
        reader = least_read(self.readers.values())
        self._moved_on = True
        with _own_random_numbers():
            losses, waited = self._losses(reader, plan, started, compute or self.replica.step)
        loss = float(torch.stack(losses).mean())
        images = len(losses) * self.replica.batches_per_step * self.recipe.batch_size
        reader.images += images
        return Report(
            member=self.number,
            shard=reader.number,
            steps=len(losses),
            images=images,
            loss=loss,
            lr=self.replica.lr,
            iteration=self.replica.iteration + (len(losses) if compute else 0),
            position=reader.sampler.position,
            seconds=time.perf_counter() - started,
            data_seconds=waited,
            usage=self._meter.read(self._holding),
        )

    def _set_rate(self, factor: float) -> None:
        if isinstance(self.replica, Scalable):
            self.replica.rate_factor = factor
        elif factor != 1:
            raise UsageError(
                f"{type(self.replica).__name__} has no rate_factor, which the learning rate of this round is "
                "to be multiplied by: choose another algorithm than auto, or give it one"
            )

    def test(self, weights: Vector | None, examples: Shard) -> Scores:
        """Sums of the scores over ``examples``, every record once, the last batch as short as it is."""
        if weights is not None:
            self.load(weights)
        batch = self.recipe.test_batch_size or self.recipe.batch_size
        with torch.no_grad(), _own_random_numbers():
            scores = (
                self._score(examples[start : start + batch]) for start in range(0, len(examples), batch)
            )
            return sum(scores, Scores())

    def _holding(self) -> Holding:
        shards = [reader.examples for reader in self.readers.values()]
        return Holding(
            records=self.records,
            bytes_=sum(shard.nbytes for shard in shards),
            spilled_bytes=sum(shard.spilled_bytes for shard in shards if isinstance(shard, Records)),
            folder=str(spill_folder()),
            device=str(self.replica.weights.device),
        )

    @property
    def state(self) -> WorkerState:
        """All that another worker of this shard would need to go on, besides the weights."""
        return WorkerState(
            iteration=self.replica.iteration,
            position=self.positions.get(self.number, 0),
            history=self.replica.history().cpu().numpy(),
        )

    @property
    def positions(self) -> dict[int, int]:
        """How far each shard it holds has been read."""
        return {number: reader.sampler.position for number, reader in self.readers.items()}

    def restore(self, state: WorkerState) -> None:
        """Go on where another worker of this shard was."""
        self.replica.iteration = state.iteration
        if self.number in self.readers:
            self.readers[self.number].sampler.position = state.position
        if state.history is not None:
            self.restore_history(state.history)

    def restore_history(self, history: Vector) -> None:
        """Give the solver another memory, float32 (H,). Raises ModelError if it is another solver's."""
        due = self.replica.history().numel()
        if history.size != due:
            raise ModelError(f"a history of {history.size:,} numbers is given to a solver that has {due:,}")
        self.replica.restore_history(torch.from_numpy(history.copy()))

    def _losses(
        self, reader: ShardReader, plan: RoundPlan, started: float, step: Step
    ) -> tuple[list[torch.Tensor], float]:
        """Take the steps of a round; the batches that were made and not used count as unread.

        Also says for how many seconds it waited for batches.
        """
        each, replica = self.replica.batches_per_step, self.replica
        feed = reader.batches(
            self.recipe.transform,
            replica.weights.device,
            steps=plan.tau,
            batches_per_step=each,
            worker=self.number,
            iteration=replica.iteration,
        )
        losses: list[torch.Tensor] = []
        with Ahead(feed, plan.tau * each) as ahead:
            used = _Used(ahead)
            while len(losses) < plan.tau and not (losses and self._hands_in(plan, started)):
                _seed(replica.weights.device, used.seed_of_next())
                losses.append(step(used).detach())
        reader.sampler.position = used.position
        return losses, used.waited

    def _hands_in(self, plan: RoundPlan, started: float) -> bool:
        """Whether it begins no further step of a round."""
        return plan.is_over(time.perf_counter() - started) or self.notice.hands_in

    def _score(self, examples: Shard) -> Scores:
        transforms = by_column(self.recipe.test_transform or self.recipe.transform)
        device = self.replica.weights.device
        batch = {
            name: for_net(
                transforms.get(name),
                as_tensor(rows).to(device),
                train=False,
                rng=np.random.default_rng(self.recipe.seed),
                own=name in TARGETS,
            )
            for name, rows in examples.columns.items()
        }
        return Scores(records=len(examples), sums=self.replica.score(batch))


def _seed(device: torch.device, seed: int) -> None:
    """Say what a step on ``device`` draws from."""
    with _GENERATOR:
        # torch.manual_seed notes the call stack for every other device, 0.3 ms a step
        if device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)


class _Used(Iterator[Batch]):
    """The batches of a round as a replica takes them; ``position`` is the sampler's after the last taken.

    ``waited`` is for how many seconds they were not ready yet.
    """

    def __init__(self, ready: Iterable[Ready]) -> None:
        self._ready = iter(ready)
        self._next: Ready | None = None
        self.position, self.waited = 0, 0.0

    def seed_of_next(self) -> int:
        """What the step that begins with the next batch draws from."""
        self._next = self._next or self._awaited()
        return self._next.seed

    def __next__(self) -> Batch:
        ready, self._next = self._next or self._awaited(), None
        self.position = ready.position
        return ready.wait()

    def _awaited(self) -> Ready:
        started = time.perf_counter()
        ready = next(self._ready)
        self.waited += time.perf_counter() - started
        return ready


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Leave torch's generator as it was found."""
    with _GENERATOR:
        state = torch.get_rng_state()
    try:
        yield
    finally:
        with _GENERATOR:
            torch.set_rng_state(state)
