"""Transfers over shared links, against sums written out."""

from __future__ import annotations

import queue

import pytest

from sparknet.simulation.events import EventQueue
from sparknet.simulation.links import Connection, SharedLink, slow_start


def ended(events: EventQueue) -> None:
    with pytest.raises(queue.Empty):
        events.get(timeout=1e6)


def times_of(rate: float, most: float, sends: list[tuple[float, float]]) -> list[float]:
    """When transfers end that begin at the first number and have so many bytes as the second says."""
    events = EventQueue()
    link = SharedLink(events, rate, most)
    ends = [0.0] * len(sends)

    def send(number: int, size: float) -> None:
        link.send(size, lambda: ends.__setitem__(number, events.now()))

    for number, (at, size) in enumerate(sends):
        events.after(at, lambda number=number, size=size: send(number, size))  # type: ignore[misc]
    ended(events)
    return ends


def test_transfers_share_a_link_evenly() -> None:
    assert times_of(100, 100, [(0, 200)]) == pytest.approx([2])
    assert times_of(100, 100, [(0, 200), (0, 200)]) == pytest.approx([4, 4])
    # alone for a second, then two of them, then the longer one alone again
    assert times_of(100, 100, [(0, 200), (1, 300)]) == pytest.approx([3, 5])
    # no faster than the other end's link
    assert times_of(100, 40, [(0, 200), (0, 40)]) == pytest.approx([5, 1])


def test_many_transfers_take_as_long_as_their_bytes() -> None:
    assert max(times_of(1e6, 1e6, [(0, 1000.0)] * 500)) == pytest.approx(0.5)


def test_a_connection_begins_slowly_after_a_pause_and_not_before() -> None:
    events = EventQueue()
    connection = Connection(events, SharedLink(events, 1.25e6, 1.25e6), latency=0.05)
    arrivals: list[float] = []
    for at in (0, 1.0, 30.0):
        events.after(at, lambda: connection.send(582_312, lambda: arrivals.append(events.now())))
    ended(events)
    seconds = 582_312 / 1.25e6
    lost = slow_start(582_312, 1.25e6, 0.1)
    assert arrivals[0] == pytest.approx(seconds + 0.05 + lost)
    assert arrivals[1] == pytest.approx(1 + seconds + 0.05)
    assert arrivals[2] == pytest.approx(30 + seconds + 0.05 + lost)
    # bare TCP over a shaped link took 0.82 s for it (docs/results.md)
    assert arrivals[0] == pytest.approx(0.82, rel=0.1)


def test_the_window_is_halved_for_each_timeout_of_a_pause_unless_it_is_kept() -> None:
    """148 kB fill a link that holds 125 kB; after two timeouts of 0.3 s a quarter of the window is left."""

    def seconds(pause: float, *, keeps_window: bool) -> float:
        events = EventQueue()
        link = SharedLink(events, 1.25e6, 1.25e6)
        connection = Connection(events, link, latency=0.05, keeps_window=keeps_window)
        connection.send(148_000, lambda: None)
        events.work(148_000 / 1.25e6 + pause)
        arrivals: list[float] = []
        began = events.now()
        connection.send(148_000, lambda: arrivals.append(events.now() - began))
        ended(events)
        return arrivals[0]

    alone = 148_000 / 1.25e6 + 0.05
    assert seconds(0.2, keeps_window=False) == pytest.approx(alone)
    # 37 and 74 kB are under way for less than a round trip
    lost = 2 * 0.1 - (37_000 + 74_000) / 1.25e6
    assert seconds(0.7, keeps_window=False) == pytest.approx(alone + lost)
    assert seconds(30, keeps_window=True) == pytest.approx(alone)


def test_a_window_grows_to_twice_what_is_on_its_way_on_a_full_link() -> None:
    events = EventQueue()
    connection = Connection(events, SharedLink(events, 1.25e6, 1.25e6), latency=0.05)
    arrivals: list[float] = []
    connection.send(10e6, lambda: None)
    events.work(8 + 0.7)
    connection.send(10e6, lambda: arrivals.append(events.now() - 8.7))
    ended(events)
    # 250 kB, halved twice: half of a round trip is lost once
    assert arrivals[0] == pytest.approx(8.05 + 0.05)


def test_without_delay_nothing_is_lost_to_slow_start() -> None:
    assert slow_start(1e9, 1e9, 0.0) == 0
    assert slow_start(10_000, 1e6, 1.0) == 0


def test_what_is_due_at_once_happens_in_the_order_it_was_asked_for() -> None:
    events, seen = EventQueue(), list[int]()
    for number in range(5):
        events.after(1, lambda number=number: seen.append(number))  # type: ignore[misc]
    ended(events)
    assert seen == [0, 1, 2, 3, 4]
    assert events.now() == 1e6
