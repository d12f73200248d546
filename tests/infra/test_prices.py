"""Prices come from AWS where it answers, otherwise from the dated table, and say which."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra import costs, history
from infra.ec2 import catalog, prices, quotas
from infra.ec2.cleanup import ADDRESS, GROUP, SNAPSHOT, VOLUME, Resource
from infra.ec2.quotas import Need
from infra.ec2.region import Region
from infra.errors import QuotaError
from tests.infra.hosts import made_up_nodes


def product(dollars: str) -> str:
    """One entry of PriceList, in the form of the price list's JSON."""
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": dollars}}
    return json.dumps({"terms": {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": dimension}}}}})


def answering(answer: Any) -> Region:
    """A region that gives ``answer`` to every call, in every service and place."""

    class Client:
        def __getattr__(self, _operation: str) -> Any:
            def call(**_arguments: Any) -> Any:
                if isinstance(answer, Exception):
                    raise answer
                return answer

            return call

    region = Region("us-east-1", retry_seconds=0.01, sleep=lambda _seconds: None)
    region.client = lambda _service: Client()  # type: ignore[method-assign]
    region.at = lambda _name, retry_seconds=None: region  # type: ignore[method-assign]
    return region


DENIED = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "GetProducts")


def test_a_price_of_aws_goes_before_the_table() -> None:
    found = prices.on_demand(
        answering({"PriceList": [product("0.0000000000"), product("0.9100000000")]}), ["g6.xlarge"]
    )
    assert (found["g6.xlarge"].dollars, found["g6.xlarge"].source) == (0.91, "AWS")


def test_without_an_answer_the_table_serves_and_is_dated() -> None:
    found = prices.on_demand(answering(DENIED), ["g6.xlarge", "z99.huge"])
    assert set(found) == {"g6.xlarge"}
    assert found["g6.xlarge"].dollars == 0.8048
    assert found["g6.xlarge"].source == "table of 2026-03-01"


def test_the_table_has_every_type_that_is_proposed() -> None:
    from infra.spec import GPU_TYPES, MASTER_TYPE

    known = prices.on_demand(answering(DENIED), [*GPU_TYPES, MASTER_TYPE, *catalog.RETIRED.values()])
    assert set(known) >= {*GPU_TYPES, MASTER_TYPE, *catalog.RETIRED.values()}


def test_a_cluster_costs_what_its_nodes_and_volumes_do() -> None:
    nodes = [
        replace(node, purchase="on-demand", launched="2026-11-01T00:00:00+00:00") for node in made_up_nodes(2)
    ]
    born = {"cluster": "c", "created": "2026-11-01T01:00:00+00:00"}
    others = [
        Resource(kind=VOLUME, id="vol-1", size_gib=730, volume_type="gp3", **born),
        Resource(kind=SNAPSHOT, id="snap-1", size_gib=146, **born),
        Resource(kind=ADDRESS, id="eipalloc-1", **born),
        Resource(kind=GROUP, id="sg-1", **born),
    ]
    now = datetime(2026, 11, 1, 2, tzinfo=UTC)
    runs = history.merged((), nodes, storage_per_hour=0, now=now)
    cost = costs.of_cluster(answering(DENIED), runs, others, now=now)
    machines, kept = 0.096 + 2 * 0.8048 + 3 * 0.005, 0.08 + 0.01 + 0.005
    assert cost.per_hour == pytest.approx(machines + kept)
    assert cost.so_far == pytest.approx(2 * machines + kept)
    assert cost.unknown == ()


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("g6.xlarge", "G and VT"),
        ("gr6.4xlarge", "G and VT"),
        ("p5.48xlarge", "P"),
        ("m6i.large", "Standard"),
        ("inf2.xlarge", "inf"),
    ],
)
def test_types_count_under_the_quota_of_their_family(name: str, family: str) -> None:
    assert quotas.family(name) == family


@pytest.mark.parametrize(
    ("answer", "used", "sentence"),
    [
        ({"Quota": {"Value": 16.0}}, 0, "is 16, 20 are needed.\n"),
        ({"Quota": {"Value": 32.0}}, 16, "is 32, 20 are needed and 16 are in use.\n"),
        ({"Quota": {"Value": 36.0}}, 16, ""),
        (DENIED, 0, ""),
    ],
    ids=["too small", "in use", "enough", "unknown"],
)
def test_a_small_quota_is_refused_and_an_unknown_one_is_not(answer: Any, used: int, sentence: str) -> None:
    need, region = Need(family="G and VT", purchase="spot", vcpus=20), answering(answer)
    found = quotas.lines(region, [need], {(need.family, need.purchase): used})
    with pytest.raises(QuotaError) if sentence else nullcontext() as refused:
        quotas.require(region, found)
    if refused:
        assert sentence in str(refused.value)
        assert f"--desired-value {20 + used}" in str(refused.value)


def test_retired_types_become_todays_and_nothing_is_asked_twice() -> None:
    names, notes = catalog.without_retired(["g2.2xlarge", "g3s.xlarge", "g6.xlarge"])
    assert names == ("g4dn.xlarge", "g6.xlarge")
    assert len(notes) == 2
