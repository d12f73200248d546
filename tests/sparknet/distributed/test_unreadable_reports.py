"""A worker of another version of this program cannot be understood: that ends training, with its reason."""

from __future__ import annotations

import pytest

from sparknet.distributed.averaging.star import DeltaSender
from sparknet.distributed.comm.channel import Channel, Frame, Kind, raw
from sparknet.distributed.worker_service import Service
from sparknet.errors import TrainingError
from sparknet.training import Settings, train
from sparknet.worker import Worker
from tests.sparknet.distributed.in_process import in_process
from tests.sparknet.small import pictures, small_recipe


class OfAnotherVersion(Service):
    """Its reports say something that the driver does not know of."""

    def _train(self, channel: Channel, worker: Worker, sender: DeltaSender, frame: Frame) -> None:
        channel.send(Kind.REPORT, {"steps": 1, "novelty": 7}, raw(worker.vector), seconds=5)


def test_reports_that_cannot_be_read_end_training_instead_of_coming_again_and_again() -> None:
    with in_process(small_recipe(), [], workers=1) as workers:
        plain = workers.service(0, pictures())
        workers.start(OfAnotherVersion(plain.assignment, plain.who, plain.drain))
        with pytest.raises(TrainingError, match=r"failed \(3 times in a row\): a report that cannot be read"):
            next(train(workers, Settings(rounds=1)))
