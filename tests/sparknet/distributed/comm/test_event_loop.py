"""One thread for many connections: all get on, none holds up another, and it ends when it is told to."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from sparknet.distributed.comm.event_loop import EventLoop
from sparknet.distributed.comm.steps import Steps, Wait, run


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    made = EventLoop("sparknet-test-loop")
    made.start()
    yield made
    made.close()
    assert not made.is_alive()


def pair() -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair()
    near.setblocking(False)
    return near, far


def echo(connection: socket.socket) -> Steps[None]:
    """What comes goes back, until the other end hangs up."""
    while True:
        yield Wait(select.POLLIN)
        data = connection.recv(100)
        if not data:
            return
        connection.send(data)


def test_many_connections_are_served_at_once(loop: EventLoop) -> None:
    ends = [pair() for _ in range(50)]
    for near, _ in ends:
        loop.add(near, echo(near))
    for turn in range(3):
        for number, (_, far) in enumerate(ends):
            far.send(f"{turn} {number}".encode())
        assert [far.recv(100).decode() for _, far in ends] == [f"{turn} {number}" for number in range(50)]
    for _, far in ends:
        far.close()
    deadline = time.monotonic() + 10
    while loop.tasks and time.monotonic() < deadline:
        time.sleep(0.01)
    assert loop.tasks == 0


def test_a_wait_ends_when_its_time_is_over_and_others_go_on_meanwhile(loop: EventLoop) -> None:
    near, far = pair()
    busy, busy_far = pair()
    ended, done = list[float](), threading.Event()

    def patient() -> Steps[None]:
        for seconds in (0.1, 5.0, 0.2):  # the second ends early: something comes
            until = time.monotonic() + seconds
            ready = yield Wait(select.POLLIN, until)
            assert ready == (seconds == 5.0)
            if ready:
                near.recv(1)
            ended.append(time.monotonic() - until)
        done.set()

    loop.add(near, patient())
    loop.add(busy, echo(busy))
    for _ in range(30):
        busy_far.send(b"x")
        assert busy_far.recv(1) == b"x"
        time.sleep(0.01)
    far.send(b"y")
    assert done.wait(5)
    assert ended[0] >= 0
    assert ended[1] < -3
    assert ended[2] >= 0
    for each in (far, busy_far):
        each.close()


def test_no_wake_is_lost_whoever_calls_it(loop: EventLoop) -> None:
    """Work is put into a queue and its task woken, from several threads as fast as they can."""
    near, far = pair()
    work, done = list[int](), threading.Event()

    def worker() -> Steps[None]:
        count = 0
        while count < 4000:
            while not work:
                yield Wait(0)
            count += len([work.pop() for _ in range(len(work))])
        done.set()

    task = loop.add(near, worker())

    def put() -> None:
        for number in range(1000):
            work.append(number)
            task.wake()

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done.wait(10)
    far.close()


def test_an_error_costs_one_connection_and_is_told(loop: EventLoop, caplog: pytest.LogCaptureFixture) -> None:
    near, far = pair()
    other, other_far = pair()

    def broken() -> Steps[None]:
        yield Wait(select.POLLIN)
        near.recv(1)
        raise ZeroDivisionError("one of this program")

    loop.add(near, broken())
    loop.add(other, echo(other))
    with caplog.at_level(logging.ERROR):
        far.send(b"x")
        assert far.recv(1) == b""  # it has been closed
        other_far.send(b"y")
        assert other_far.recv(1) == b"y"
    assert "one of this program" in caplog.text
    for each in (far, other_far):
        each.close()


def test_a_connection_that_ends_wakes_whoever_waits_for_nothing(loop: EventLoop) -> None:
    near, far = pair()
    done = threading.Event()

    def waiting() -> Steps[None]:
        while not (yield Wait(0)):
            pass
        done.set()

    loop.add(near, waiting())
    far.close()
    assert done.wait(5)


def test_a_connection_that_a_forked_process_holds_too_is_done_with_when_it_ends(loop: EventLoop) -> None:
    """The system would go on to say that it has ended, for ever, and the loop would do nothing but listen."""
    near, far = pair()
    inherited = near.dup()
    loop.add(near, echo(near))
    far.close()
    deadline = time.monotonic() + 5
    while near.fileno() >= 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    used = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - used < 0.25
    inherited.close()


def test_a_loop_that_is_closed_ends_what_is_under_way() -> None:
    loop = EventLoop("sparknet-test-loop")
    loop.start()
    near, far = pair()
    loop.add(near, echo(near))
    far.send(b"x")
    assert far.recv(1) == b"x"
    loop.close()
    loop.close()
    assert near.fileno() < 0
    assert far.recv(1) == b""
    far.close()


def test_what_is_under_way_comes_before_what_has_been_woken(loop: EventLoop) -> None:
    """Of 100 that are woken together few are under way at a time: each could always go on."""
    ends, holding = [pair() for _ in range(100)], pair()
    asleep, began, under_way, most = list[int](), list[int](), set[int](), list[int]()
    all_are_woken, done = threading.Event(), threading.Event()

    def transfer(number: int) -> Steps[None]:
        asleep.append(number)
        yield Wait(0)
        began.append(number)
        under_way.add(number)
        most.append(len(under_way))
        for _ in range(5):
            yield Wait(select.POLLOUT)
        under_way.remove(number)
        if len(began) == 100 and not under_way:
            done.set()

    def hold_up_the_loop() -> Steps[None]:
        all_are_woken.wait(5)
        yield Wait(0, time.monotonic())

    tasks = [loop.add(near, transfer(number)) for number, (near, _) in enumerate(ends)]
    deadline = time.monotonic() + 5
    while len(asleep) < 100 and time.monotonic() < deadline:
        time.sleep(0.01)
    loop.add(holding[0], hold_up_the_loop())
    for task in tasks:
        task.wake()
    all_are_woken.set()
    assert done.wait(10)
    assert began == list(range(100))
    assert max(most) < 20
    for _, far in (*ends, holding):
        far.close()


def test_steps_of_one_thread_return_what_they_return_and_raise_what_they_raise() -> None:
    near, far = pair()

    def five() -> Steps[bytes]:
        yield Wait(select.POLLIN, time.monotonic() + 5)
        return near.recv(5)

    far.send(b"hello")
    assert run(near, five()) == b"hello"
    near.close()
    with pytest.raises(OSError, match="has been closed"):
        run(near, five())
    far.close()
