"""Forecasts: against the SparkNet paper's figures and cost model, and what must hold for any numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparknet.caffe import TRAIN
from sparknet.caffe.net import Net
from sparknet.caffe.summary import summarise
from sparknet.errors import UsageError
from sparknet.reporting.costs import Cost
from sparknet.simulation.forecast import Forecast, Way, forecast, limits, ways
from sparknet.simulation.machines import PAYLOAD, Machines
from tests.bench.sparknet_paper import ALEXNET, GOOGLENET, SPEED_UPS

QUICK = Machines(parameters=145_578, step_seconds=0.042, batch_size=100, bandwidth=1.25e6, latency=0.05)

ALGORITHMS = ("average", "slowmo", "diloco", "easgd", "easgd-lockfree", "eamsgd", "sync", "auto")


def test_an_exchange_of_the_paper_takes_the_paper_s_twenty_seconds() -> None:
    """Section 3 of arXiv 1511.06051: S about 20 s, C about 2 s, with five workers."""
    assert forecast(ALEXNET, 5, Way(tau=50)).exchange_seconds == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("tau", [1, 10, 50, 100])
def test_the_overhead_is_that_of_the_paper_s_cost_model(tau: int) -> None:
    due = 1 - Cost(step_seconds=2, sync_seconds=20).overhead(tau)
    assert forecast(ALEXNET, 5, Way(tau=tau)).goodput == pytest.approx(due, rel=0.03)


def test_the_plan_s_speed_ups_leave_room_for_the_paper_s() -> None:
    """Images a second are faster by more than time to an accuracy is, and the more so the more workers."""
    for net in ("AlexNet", "GoogLeNet"):
        shares = [each.paper / each.plan for each in SPEED_UPS if each.net == net]
        assert all(0.5 < share < 1 for share in shares)
        assert min(shares) == shares[-1]
        # with few workers exchanges explain nearly all of what is missing
        assert shares[0] > 0.85


def test_the_paper_s_nets_are_as_large_as_their_files_here() -> None:
    for machines, name in ((ALEXNET, "caffenet"), (GOOGLENET, "googlenet")):
        net = Net.for_file(f"apps/models/{name}_train_test.prototxt", TRAIN)
        assert summarise(net).parameters == machines.parameters


def test_averaging_after_every_step_over_that_link_is_slower_than_one_machine() -> None:
    """C / (C / K + S) is below 1 there, for every K."""
    found = forecast(ALEXNET, 5, Way(algorithm="sync", tau=1))
    assert found.images_per_second < ALEXNET.batch_size / ALEXNET.step_seconds


def test_gradients_that_travel_while_they_are_computed_are_waited_for_less() -> None:
    """By the two thirds of a step that are its backward pass, at most, and never not at all."""
    slow = replace(QUICK, bandwidth=QUICK.vector_bytes / QUICK.step_seconds, latency=0.0, jitter=0.0)
    late = forecast(slow, 4, Way(algorithm="average", tau=1, exchange="ring")).exchange_seconds
    early = forecast(slow, 4, Way(algorithm="sync", tau=1, exchange="ring")).exchange_seconds
    assert late - early == pytest.approx(2 / 3 * slow.step_seconds, rel=0.05)
    fast = replace(slow, bandwidth=20 * slow.bandwidth)
    assert forecast(fast, 4, Way(algorithm="sync", tau=1, exchange="ring")).exchange_seconds > 0


@pytest.mark.parametrize("name", ALGORITHMS)
def test_one_worker_without_a_network_to_speak_of_is_one_machine(name: str) -> None:
    fast = replace(QUICK, bandwidth=1e12, latency=0.0, jitter=0.0, handling=0.0, processing=1e12)
    way = Way(algorithm=name, tau=1 if name == "sync" else 10)
    assert forecast(fast, 1, way).goodput == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("exchange", ["star", "ring"])
@pytest.mark.parametrize("overlap", [False, True])
def test_every_way_is_forecast_or_refused_in_a_sentence(name: str, exchange: str, overlap: bool) -> None:
    tau = 1 if name == "sync" else 4
    if overlap and ("easgd" in name or name == "eamsgd" or name == "sync"):
        with pytest.raises(UsageError, match="overlap"):
            Way(algorithm=name, tau=tau, exchange=exchange, overlap=overlap)
        return
    if exchange == "ring" and name in ("easgd", "easgd-lockfree", "eamsgd"):
        with pytest.raises(UsageError, match="star or auto"):
            Way(algorithm=name, tau=tau, exchange=exchange)
        return
    chosen = Way(algorithm=name, tau=tau, exchange=exchange, overlap=overlap)
    found = forecast(replace(QUICK, reclaims=1.0), 4, chosen)
    assert 0 < found.goodput <= 1
    assert found.reclaim_seconds >= 0


def test_the_same_seed_gives_the_same_numbers() -> None:
    way = Way(tau=10, exchange="ring", overlap=True)
    assert forecast(QUICK, 6, way, seed=3) == forecast(QUICK, 6, way, seed=3)
    assert forecast(QUICK, 6, way, seed=3) != forecast(QUICK, 6, way, seed=4)


def by_workers(way: Way, machines: Machines = QUICK) -> list[Forecast]:
    return [forecast(machines, count, way) for count in (2, 8, 32)]


def test_a_star_is_full_where_a_ring_is_not() -> None:
    star, ring = by_workers(Way(tau=10)), by_workers(Way(tau=10, exchange="ring"))
    link = QUICK.bandwidth / QUICK.vector_bytes  # vectors a second
    assert star[-1].images_per_second < 10 * QUICK.batch_size * link
    assert ring[-1].images_per_second > 8 * star[-1].images_per_second
    assert limits(star)[0] == 2
    assert limits(ring)[1] == 32


def test_overlap_hides_exchanges_that_fit_into_a_round() -> None:
    late = forecast(QUICK, 2, Way(tau=80, overlap=True))
    assert late.goodput > 0.97
    assert late.goodput > forecast(QUICK, 2, Way(tau=80)).goodput + 0.25


def test_measured_tau_keeps_exchanges_under_their_share() -> None:
    assert forecast(QUICK, 4, Way(tau="auto")).goodput > 0.9
    assert forecast(QUICK, 4, Way(tau="auto", overlap=True)).tau < forecast(QUICK, 4, Way(tau="auto")).tau


def test_a_connection_that_keeps_its_window_costs_nothing_after_a_pause() -> None:
    """Weights as int8, 50 ms each way: the bytes and the latencies are all there is to an exchange."""
    way = Way(tau=10, wire="int8")
    bbr = forecast(replace(QUICK, congestion="bbr"), 2, way).exchange_seconds
    one_way = 145_578 * (1 + 4 / 256) / (QUICK.bandwidth * PAYLOAD)
    assert bbr == pytest.approx(2 * (2 * one_way + QUICK.latency), rel=0.05)
    assert forecast(QUICK, 2, way).exchange_seconds > bbr + 0.1


def test_a_latency_to_the_driver_of_its_own_leaves_that_between_workers() -> None:
    near = replace(QUICK, latency=0.1, driver_latency=0.0, congestion="bbr", jitter=0.0)
    star, ring = Way(tau=10), Way(tau=10, exchange="ring")
    far = replace(near, driver_latency=0.1)
    for way, messages in ((star, 2), (ring, 4)):
        more = forecast(far, 2, way).round_seconds - forecast(near, 2, way).round_seconds
        assert more == pytest.approx(messages * 0.1, rel=0.1)


def test_a_time_cap_ends_rounds_early() -> None:
    found = forecast(QUICK, 2, Way(tau=1000, time_cap_seconds=0.42))
    assert found.round_seconds - found.exchange_seconds == pytest.approx(0.42, rel=0.25)


def test_reclaims_cost_goodput_and_longer_replacements_more() -> None:
    way = Way(tau=10, exchange="ring")
    calm = forecast(QUICK, 8, way).goodput
    struck = forecast(replace(QUICK, reclaims=2.0), 8, way).goodput
    longer = forecast(replace(QUICK, reclaims=2.0, replacement_seconds=600), 8, way).goodput
    assert calm > struck > longer > 0.5 * calm
    assert longer / struck == pytest.approx((1 + 2 * 120 / 3600) / (1 + 2 * 600 / 3600), rel=0.01)


def test_dollars_are_hours_times_prices() -> None:
    found = forecast(QUICK, 4, Way(tau=100))
    hours = 50_000 / found.images_per_second / 3600
    assert found.dollars_an_epoch(50_000, 0.5, 1.0) == pytest.approx(hours * 3)


def test_what_does_not_go_together_is_left_out_and_all_of_it_is_refused() -> None:
    found = ways(["average", "easgd"], [10], ["star", "ring"], ["float32"], [False, True])
    assert [str(way) for way in found if way.algorithm == "easgd"] == ["easgd, star, float32, tau 10"]
    assert len(found) == 5
    with pytest.raises(UsageError, match="--exchange star or auto"):
        ways(["easgd"], [10], ["ring"], ["float32"], [False])
    assert [way.tau for way in ways(["sync"], [10], ["star"], ["float32"], [False])] == [1]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bandwidth": 0}, "bandwidth is 0"),
        ({"latency": -1}, "latency is -1"),
        ({"driver_latency": -1}, "driver_latency is -1"),
        ({"congestion": "vegas"}, "cubic, reno, bbr"),
        ({"step_seconds": float("nan")}, "step_seconds is nan"),
    ],
)
def test_machines_that_cannot_be_are_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(QUICK, **values)  # type: ignore[arg-type]
