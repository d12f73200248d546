"""Scenario files in three notations, and what cannot be in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import UsageError
from infra.local.models.faults import Fault, Faults
from infra.local.models.scenario import CapacityRule, PoolRule, PriceRule, Scenario

EXPECTED = Scenario(
    hosts="none",
    speed=60,
    capacity=(CapacityRule(instance_type="g6.*", machines=0), CapacityRule(zone="us-east-1b", machines=3)),
    spot_prices=(PriceRule(price=0.31),),
    quotas={"L-3819A6DF": 16},
    faults=(Fault(action="CreateFleet", kind="lost"),),
)
NOTATIONS = {
    "s.yaml": """
hosts: none
speed: 60
capacity: [{instance_type: "g6.*", machines: 0}, {zone: us-east-1b, machines: 3}]
spot_prices: [{price: 0.31}]
quotas: {L-3819A6DF: 16}
faults: [{action: CreateFleet, kind: lost}]
""",
    "s.toml": """
hosts = "none"
speed = 60
capacity = [{instance_type = "g6.*", machines = 0}, {zone = "us-east-1b", machines = 3}]
spot_prices = [{price = 0.31}]
quotas = {L-3819A6DF = 16}
faults = [{action = "CreateFleet", kind = "lost"}]
""",
    "s.json": """{"hosts": "none", "speed": 60,
"capacity": [{"instance_type": "g6.*", "machines": 0}, {"zone": "us-east-1b", "machines": 3}],
"spot_prices": [{"price": 0.31}], "quotas": {"L-3819A6DF": 16},
"faults": [{"action": "CreateFleet", "kind": "lost"}]}""",
}


@pytest.mark.parametrize("name", NOTATIONS)
def test_a_scenario_can_be_written_in_three_notations(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(NOTATIONS[name])
    assert Scenario.read(tmp_path / name) == EXPECTED


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hosts: castles", "hosts must be one of"),
        ("speed: 0", "speed must be more than 0"),
        ("speeed: 1", "Scenario has no 'speeed'"),
        ("capacity: [{machines: -1}]", "0 or more"),
        ("capacity: [{machines: 1, purchase: rent}]", "purchase must be one of"),
        ("capacity: 7", "a list of CapacityRule"),
        ("faults: [{times: 0}]", "1 or more"),
        ("- a list", "a scenario is a mapping"),
        ("a: [", "expected"),
    ],
)
def test_a_scenario_that_cannot_be_names_the_file_and_the_reason(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=says) as refused:
        Scenario.read(path)
    assert str(path) in str(refused.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        Scenario.read(tmp_path / "none.yaml")


def test_rules_fit_by_pattern() -> None:
    rule = PoolRule(instance_type="g6.*", zone="us-east-1?", purchase="spot")
    assert rule.fits("g6.xlarge", "us-east-1b", "spot")
    assert not rule.fits("g6e.xlarge", "us-east-1b", "spot")
    assert not rule.fits("g6.xlarge", "us-west-2b", "spot")
    assert not rule.fits("g6.xlarge", "us-east-1b", "on-demand")


def test_a_fault_happens_as_often_as_it_says_and_to_what_it_names() -> None:
    faults = Faults([Fault(action="Create*", times=2), Fault(index=5, kind="reset")])
    kinds = [
        fault.kind if (fault := faults.take(action, index)) else None
        for index, action in enumerate(
            ["CreateFleet", "RunInstances", "CreateTags", "CreateTags", "RunInstances"], 1
        )
    ]
    assert kinds == ["error", None, "error", None, "reset"]
    assert faults.listed() == []
