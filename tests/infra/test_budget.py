"""Budgets: a moment at which the cluster cannot have cost more, whatever spot prices do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from infra import cluster, lifetime
from infra.budget import Spent
from infra.cluster import Cloud
from infra.ec2 import network, nodes, prices, tags
from infra.ec2.lifetime import Lifetime
from infra.errors import UsageError
from infra.events import ignore
from infra.local import LocalCloud
from infra.spec import ClusterSpec, Purchase, Spill
from tests.infra.conftest import Run

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)


def test_what_is_spent_at_most_grows_with_the_hours_and_survives_its_tag() -> None:
    spent = Spent(dollars=3.0, per_hour=2.0, moment=NOON)
    assert spent.at(NOON + timedelta(hours=2)) == 7.0
    assert spent.at(NOON - timedelta(hours=2)) == 3.0
    assert spent.reaches(20) == NOON + timedelta(hours=8.5)
    assert Spent.read(str(spent)) == spent
    assert Spent.read("") is None


def of(cloud: Cloud, name: str) -> Lifetime:
    [found] = {Lifetime.of(node.tags) for node in nodes.alive(nodes.describe(cloud.region, name))}
    group = network.find_group(cloud.region, name)
    assert group is not None
    assert group.lifetime == found
    return found


def hourly(cloud: Cloud, spec: ClusterSpec, worker: float) -> float:
    """Reckoned by hand: two machines of known types, their volumes and addresses."""
    machines = prices.on_demand(cloud.region, {spec.master_instance_type})
    volumes = spec.nodes * prices.storage("gp3", 100)
    return worker * spec.workers + machines[spec.master_instance_type].dollars + volumes


def hours_of(cloud: Cloud, lifetime: Lifetime) -> float:
    assert lifetime.budget_ends is not None
    return (lifetime.budget_ends - cloud.region.now()).total_seconds() / 3600


def test_without_a_spot_price_a_worker_may_cost_what_it_costs_on_demand(
    simulated: Cloud, spec: ClusterSpec
) -> None:
    wanted = replace(spec, workers=2, instance_types=("g6.xlarge",), budget=10.0, max_hours=100)
    cluster.launch(simulated, wanted, ignore)
    dear = prices.on_demand(simulated.region, {"g6.xlarge"})["g6.xlarge"].dollars
    found = of(simulated, spec.name)
    rate = 10 / hours_of(simulated, found)
    least = hourly(simulated, wanted, dear)
    assert least < rate < 1.25 * least  # roots and addresses come on top
    assert found.ends == found.budget_ends
    cluster.destroy(simulated, spec.name, ignore)


def test_with_a_spot_price_it_lasts_longer_and_never_beyond_max_hours(
    simulated: Cloud, spec: ClusterSpec
) -> None:
    cheap = Purchase(spot_price=0.45)
    wanted = replace(spec, workers=2, instance_types=("g6.xlarge",), budget=10.0, purchase=cheap, max_hours=3)
    cluster.launch(simulated, wanted, ignore)
    found = of(simulated, spec.name)
    assert hours_of(simulated, found) * hourly(simulated, wanted, 0.45) > 0.8 * 10
    assert found.ends == found.expires
    cluster.destroy(simulated, spec.name, ignore)


def test_a_larger_cluster_reaches_its_budget_sooner_and_more_dollars_move_it_back(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    wanted = replace(spec, workers=1, instance_types=("g6.xlarge",), budget=20.0, max_hours=200)
    cluster.launch(simulated, wanted, ignore)
    alone = hours_of(simulated, of(simulated, spec.name))
    simulation.control("POST", "clock", {"advance_seconds": 3600})
    simulated.region.read("describe_regions")  # which tells the time
    cluster.launch(simulated, replace(wanted, workers=4), ignore)
    group = network.find_group(simulated.region, spec.name)
    assert group is not None
    spent = Spent.read(group.spent)
    assert spent is not None
    # an hour of one worker, at the spot price that it had, which is 40 to 50 % of the most it can cost
    assert 0.4 * 20 / alone < spent.dollars < 0.9 * 20 / alone
    grown = hours_of(simulated, of(simulated, spec.name))
    assert grown == pytest.approx((20 - spent.dollars) / spent.per_hour, rel=0.01)
    assert grown < alone / 2
    after = lifetime.extend(simulated, spec.name, ignore, budget=40)
    assert after.budget == 40
    assert hours_of(simulated, after) == pytest.approx(grown + 20 / spent.per_hour, rel=0.02)
    assert of(simulated, spec.name) == after
    cluster.destroy(simulated, spec.name, ignore)


def test_a_budget_that_is_spent_at_once_is_refused_before_anything_is_made(
    simulated: Cloud, spec: ClusterSpec
) -> None:
    with pytest.raises(UsageError, match=r"--budget 0.1 is spent in \d minutes at \$[\d.]+ an hour"):
        cluster.launch(simulated, replace(spec, budget=0.1), ignore)
    assert network.find_group(simulated.region, spec.name) is None
    assert nodes.alive(nodes.describe(simulated.region, spec.name)) == []


def test_plan_and_status_say_it(run: Run, simulated: Cloud, spec: ClusterSpec) -> None:
    words = ("-s", "1", "--budget", "2", "--idle-minutes", "30", "--name", spec.name)
    status, out, err = run("plan", *words)
    assert status == 0, err
    assert "at most $2.000 until it ends itself after" in out
    assert "hours, or 30 minutes without a job" in out
    status, _, err = run("launch", *words)
    assert status == 0, err
    _, out, _ = run("status", spec.name)
    [line] = [one for one in out.splitlines() if one.startswith("ends itself: ")]
    assert "before it has cost more than $2.00 (at 20" in line
    cluster.destroy(simulated, spec.name, ignore)


def test_the_tags_of_a_budget_are_those_of_every_node(simulated: Cloud, spec: ClusterSpec) -> None:
    made = cluster.launch(simulated, replace(spec, workers=1, budget=5, spill=Spill(count=0)), ignore)
    for node in nodes.alive(nodes.describe(simulated.region, spec.name)):
        assert node.tags[tags.BUDGET] == "5"
        assert node.tags[tags.BUDGET_ENDS]
    assert made.nodes
    cluster.destroy(simulated, spec.name, ignore)
