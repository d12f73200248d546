"""Workers that behave as on GPUs of their own, in host memory: their weights lie apart from where they
arrive, and are averaged where they lie, in groups of gloo."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sparknet.data.dataset import Shard
from sparknet.distributed.averaging.participant import Participant
from sparknet.distributed.averaging.rendezvous import MakeGroup
from sparknet.distributed.comm.channel import Channel, Frame
from sparknet.distributed.worker_service import Service
from sparknet.notice import Notice
from sparknet.replica import Replica
from sparknet.weights import Vector
from sparknet.worker import Recipe, Worker
from tests.sparknet.small import small_recipe


class Apart(Worker):
    """``vector`` is a copy of the net's weights; counts how often they go there and back."""

    loads = brings = 0
    _staged = True

    @cached_property
    def vector(self) -> Vector:
        return self.replica.weights.detach().numpy().copy()

    def load(self, weights: Vector) -> None:
        self.loads += 1
        super().load(weights)

    def bring(self) -> Vector:
        self.brings += 1
        return super().bring()


@dataclass(frozen=True, kw_only=True)
class ApartRecipe(Recipe):
    kind: type[Apart]

    def worker(
        self, number: int, shard: Shard, replica: Replica | None = None, notice: Notice | None = None
    ) -> Worker:
        return self.kind(replica or self.build(), shard, self, number, notice)


def apart(worker: type[Apart] = Apart, **options: object) -> ApartRecipe:
    return ApartRecipe(kind=worker, **vars(small_recipe(**options)))  # type: ignore[arg-type]


class FakeGpu(Participant):
    """As on the GPU of that name."""

    name = ""

    @cached_property
    def gpu(self) -> str:
        return self.name

    def _make_group(self) -> MakeGroup:
        return self._rendezvous.gloo


class OnGpus(Service):
    """Every worker has a GPU; ``backends`` records what each of its groups was to average with."""

    participant: type[FakeGpu] = FakeGpu

    def gpu(self) -> str:
        return f"GPU-{self.who.partition}"

    @cached_property
    def backends(self) -> list[str]:
        return []

    def _reduce(self, channel: Channel, frame: Frame) -> None:
        self.backends.append(frame.header["backend"])
        super()._reduce(channel, frame)

    def _participant_of(self, worker: Worker, channel: Channel) -> Participant | None:
        ring = self.assignment.ring
        assert ring is not None
        seconds = self.assignment.timeouts.send
        made = self.participant(worker, store=ring, host=channel.host, seconds=seconds, wire="float32")
        made.name = self.gpu()
        return made


class Sharing(OnGpus):
    """Two workers have one GPU."""

    def gpu(self) -> str:
        return f"GPU-{self.who.partition // 2}"


class Mixed(OnGpus):
    """One of the workers has none."""

    def gpu(self) -> str:
        return "" if self.who.partition == 1 else super().gpu()
