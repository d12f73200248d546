"""What a member costs the driver, from few to many: rounds of a star, and a change of members.

    ./run bench coordinator_scale                            K = 4, 16, 64, 256; 0.58 MB; about a minute
    ./run bench coordinator_scale --args '--members 4,64 --rounds 50'

Members speak the protocol and compute nothing: threads of other processes, which send back the weights they
are sent. Processor seconds are the driver process's own, for each member and round; so other work on the
machine hardly shows in them, as it does in the seconds of a round. To be expected: at K = 256 at most 1.2
times the processor seconds of K = 4 for each member. Floors are those of the least that a driver can do
(``bare_star.py``). A change is a member whose process is killed and that comes back: from its end to the end
of the first round that it is in again, other rounds being run meanwhile; how long these are says most of it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from statistics import median

import click
import numpy as np

from sparknet.distributed.comm.channel import Channel, Kind, raw
from sparknet.distributed.comm.handshake import Identity, introduce
from sparknet.distributed.coordinator import Coordinator
from sparknet.distributed.timeouts import Timeouts
from sparknet.training import Report, RoundPlan
from sparknet.weights import Vector
from tests.bench import bare_star

SIZE = 145_578
"""Weights of cifar10_quick, 0.58 MB."""

TOKEN = b"s" * 32
TIMEOUTS = Timeouts(join=120, round=120, ping=30, send=60, stop=10)
PLAN = RoundPlan(tau=1)
# Processes that hold the members, so that these do not take the driver's time.
_PROCESSES = 4
_PAUSE_SECONDS = 0.05
_ASKED = (Kind.TRAIN, Kind.SAVE, Kind.RESTORE, Kind.PING, Kind.STOP)


class Member:
    """One that answers every plan with the weights it has, from a thread; ``at`` is the driver's port."""

    def __init__(self, at: int, number: int, life: int = 0) -> None:
        self.at, self.number = at, number
        self.who = Identity(partition=number, attempt=life, host="here", pid=os.getpid())
        self.vector: Vector = np.empty(SIZE, np.float32)

    def run(self) -> None:
        with suppress(OSError, EOFError):  # the connection has been ended
            self.serve()

    def serve(self) -> None:
        channel = self.joined()
        into = {Kind.TRAIN: raw(self.vector)}
        iteration = 0
        while True:
            frame = channel.receive(*_ASKED, into=into, seconds=600)
            if frame.kind is Kind.STOP:
                return
            if frame.kind is Kind.SAVE:
                state = {"iteration": iteration, "position": iteration}
                channel.send(Kind.STATE, state, seconds=60)
            if frame.kind is Kind.RESTORE:
                iteration = int(frame.header["iteration"])
            if frame.kind is Kind.TRAIN:
                iteration += 1
                report = Report(
                    member=self.number,
                    steps=1,
                    images=1,
                    loss=0.0,
                    lr=0.1,
                    iteration=iteration,
                    position=iteration,
                    seconds=0.0,
                )
                channel.send(Kind.REPORT, report.header, raw(self.vector), seconds=60)

    def joined(self) -> Channel:
        """The driver lets 64 prove themselves at a time: the others come again."""
        while True:
            channel = Channel.connect(("127.0.0.1", self.at), 60)
            try:
                introduce(channel, TOKEN, self.who)
            except (OSError, EOFError):
                channel.close()
                time.sleep(_PAUSE_SECONDS)
                continue
            header = {"shards": {str(self.number): 1}, "place": "", "gpu": "", "iteration": 0}
            channel.send(Kind.READY, {**header, "size": SIZE, "history": 0}, seconds=60)
            return channel


def held(at: int, numbers: Iterable[int], life: int = 0, after: int | None = None) -> int:
    """A process with these members; its id. They come when there is something to read from ``after``."""
    pid = os.fork()
    if pid == 0:
        if after is not None:
            os.read(after, 1)
        threads = [threading.Thread(target=Member(at, number, life).run, daemon=True) for number in numbers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os._exit(0)
    return pid


def measured(members: int, rounds: int) -> tuple[float, float, float]:
    """Of ``members``: milliseconds of a round, the driver's processor milliseconds for a member in it, and
    seconds of a change."""
    pids, (killed, after) = list[int](), os.pipe()[::-1]
    coordinator = Coordinator(bind="127.0.0.1", workers=members, size=SIZE, token=TOKEN, timeouts=TIMEOUTS)
    try:
        # the one that is killed, and the one that takes its place: forked now, not when there are vectors,
        # which the driver would then have to copy
        pids = [held(coordinator.port, [0]), held(coordinator.port, [0], life=1, after=after)]
        parts = np.array_split(range(1, members), _PROCESSES - 1)
        pids += [held(coordinator.port, map(int, numbers)) for numbers in parts if len(numbers)]
        weights = np.zeros(SIZE, np.float32)
        for _ in range(3):
            weights = coordinator.train(weights, PLAN).mean  # type: ignore[assignment]
        took, cpu = list[float](), list[float]()
        for _ in range(rounds):
            began, used = time.perf_counter(), time.process_time()
            result = coordinator.train(weights + 0, PLAN)
            took.append(time.perf_counter() - began)
            cpu.append((time.process_time() - used) / members)
            assert len(result.reports) == members
            weights = result.mean  # type: ignore[assignment]
        began = time.perf_counter()
        _kill(pids.pop(0))
        os.write(killed, b"!")
        _until_all_are_back(coordinator, members, weights)
        return 1e3 * median(took), 1e3 * median(cpu), time.perf_counter() - began
    finally:
        coordinator.close()
        for pid in pids:
            _kill(pid)
        for end in (killed, after):
            os.close(end)


def _until_all_are_back(coordinator: Coordinator, members: int, weights: Vector) -> None:
    while True:
        result = coordinator.train(weights + 0, PLAN)
        if len(result.reports) == members and "attempt 1" in result.names[0]:
            return


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@click.command(help=__doc__)
@click.option("--members", default="4,16,64,256", show_default=True)
@click.option("--rounds", type=click.IntRange(min=3), default=20, show_default=True)
def main(members: str, rounds: int) -> None:
    click.echo(f"{4 * SIZE / 1e6:.2f} MB, star, load {os.getloadavg()[0]:.1f}")
    click.echo(
        f"{'K':>5}{'round ms':>12}{'driver CPU ms a member':>26}{'of the first':>14}{'change s':>10}"
        f"{'floor ms':>12}{'floor CPU ms a member':>24}"
    )
    first = 0.0
    for count in map(int, members.split(",")):
        took, cpu, change = measured(count, rounds)
        least, least_cpu = bare_star.measured(count, rounds, SIZE, _PROCESSES)
        first = first or cpu
        click.echo(
            f"{count:>5}{took:>12.1f}{cpu:>26.3f}{cpu / first:>14.2f}{change:>10.2f}"
            f"{least:>12.1f}{least_cpu:>24.3f}"
        )


if __name__ == "__main__":
    main()
