"""A cluster that cannot be is refused in one sentence, before anything is made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from infra.ec2 import endings, tags
from infra.ec2.tags import ClusterTags
from infra.errors import UsageError
from infra.spec import MOST_TAGS, OWN_TAGS, Access, ClusterSpec, Network, Purchase, Spill


@pytest.mark.parametrize(
    ("kind", "values", "sentence"),
    [
        (ClusterSpec, {"workers": 0}, "-s 0: a cluster needs at least one worker."),
        (ClusterSpec, {"workers": -3}, "-s -3: a cluster needs at least one worker."),
        (ClusterSpec, {"workers": 1001}, "-s 1001: EC2 launches at most 1000 workers"),
        (ClusterSpec, {"name": "9lives"}, "--name '9lives' cannot be a cluster's name"),
        (ClusterSpec, {"name": "a b"}, "--name 'a b' cannot be a cluster's name"),
        (ClusterSpec, {"region": "mars"}, "--region mars is not a region"),
        (ClusterSpec, {"zones": ("eu-west-1a",)}, "--zone eu-west-1a is not in the region us-east-1"),
        (ClusterSpec, {"zones": ("us-east-1",)}, "its zones are named like us-east-1a"),
        (ClusterSpec, {"instance_types": ()}, "--instance-type names no type."),
        (ClusterSpec, {"instance_types": ("g6",)}, "'g6' is not an instance type like g6.xlarge."),
        (ClusterSpec, {"max_hours": -1}, "--max-hours -1 is not between"),
        (Purchase, {"spot_price": 0.0}, "--spot-price 0 is too low"),
        (Purchase, {"max_price_per_hour": 0.0}, "must be more than 0"),
        (Spill, {"count": 12}, "--ebs-vol-num 12 is not between 0 and 11."),
        (Spill, {"size_gib": 0}, "--ebs-vol-size 0 is not between"),
        (Spill, {"type": "floppy"}, "--ebs-vol-type floppy is not a volume type; choose one of gp3"),
        (Network, {"authorized_address": "home"}, "--authorized-address home is not an address or a range"),
        (Network, {"authorized_address": "0.0.0.0/0"}, "lets the whole internet try the ssh port"),
        (Network, {"authorized_address": "::/0"}, "lets the whole internet try the ssh port"),
        (Access, {"key_pair": "me"}, "--key-pair me needs --identity-file"),
        (Access, {"identity_file": Path("me.pem")}, "--identity-file needs --key-pair"),
    ],
)
def test_what_cannot_be_is_refused(kind: Any, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)) as refused:
        kind(**values)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_status == 2


def test_the_world_is_let_in_only_by_a_flag_that_says_so() -> None:
    network = Network(authorized_address="0.0.0.0/0", open_to_the_world=True)
    assert network.authorized_address == "0.0.0.0/0"


def test_a_cluster_without_any_option_is_sensible() -> None:
    spec = ClusterSpec()
    assert spec.nodes == spec.workers + 1
    assert spec.max_hours == 12
    assert spec.spill.type == "gp3"
    assert len(spec.instance_types) >= 6


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"aws:mine": "x"}, "keys that begin with aws: belong to it alone"),
        ({"AWS:mine": "x"}, "keys that begin with aws: belong to it alone"),
        ({"sparknet:cluster": "x"}, "keys that begin with sparknet: belong to it alone"),
        ({"Name": "x"}, "sparknet-ec2 names each node"),
        ({f"k{number}": "" for number in range(27)}, "27 tags, and 26 are the most"),
        ({"k" * 129: ""}, "at most 128 characters"),
        ({"k": "v" * 257}, "its value 256"),
    ],
)
def test_tags_that_ec2_refuses_are_refused_before_it_is_asked(tags: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        ClusterSpec(tags=tags)


def test_the_tags_of_a_cluster_fit_beside_its_own_and_empty_ones_stay() -> None:
    mine = {f"k{number}": "" for number in range(25)} | {"corp:team": "a, b"}
    spec = ClusterSpec(tags=mine)
    made = ClusterTags.new(spec.name, "generation", max_hours=1, idle_minutes=30, budget=20, extra=spec.tags)
    pairs = {one["Key"]: one["Value"] for one in made.as_list("worker")}
    assert mine.items() <= pairs.items()
    on_the_group = {
        tags.STATE, tags.WORKERS, tags.NUMBERS, tags.HEAL, tags.HEALER, tags.BUCKET, tags.SPENT,
        tags.BUDGET_ENDS, tags.ENDED_DOLLARS, *(tags.ENDED.format(number) for number in range(endings.NAMED)),
    }  # fmt: skip
    assert len(pairs) - len(mine) + len(on_the_group) <= OWN_TAGS
    assert len(pairs) <= MOST_TAGS


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [("st1", 125, 16384), ("sc1", 125, 16384), ("gp3", 1, 65536), ("gp2", 1, 16384), ("io1", 4, 16384)],
)
def test_a_volume_is_as_large_as_its_type_can_be(kind: str, least: int, most: int) -> None:
    for size in (least, most):
        Spill(size_gib=size, type=kind)
    for size in (0, least - 1, most + 1):
        with pytest.raises(UsageError, match=f"--ebs-vol-size {size} is not between {least} and {most} GiB"):
            Spill(size_gib=size, type=kind)
