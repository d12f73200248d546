"""Rounding in one process: the bits of a star over sockets that sends fewer of them."""

from __future__ import annotations

import pytest

from sparknet.algorithms import algorithm
from sparknet.local import LocalWorkers
from sparknet.training import Round
from tests.sparknet.distributed.fixtures import TEST, shards_of
from tests.sparknet.distributed.in_process import in_process
from tests.sparknet.small import digest, small_recipe

RECIPE = small_recipe(test_batch_size=8)


def rounds(workers: object, name: str, overlap: bool) -> list[Round]:
    chosen = algorithm(name)
    settings = chosen.settings(rounds=9, tau=3, test_every=4, overlap=overlap, drain_every=3)
    return list(chosen.train(workers, settings, chosen.outer()))  # type: ignore[arg-type]


@pytest.mark.parametrize("wire", ["bfloat16", "int8"])
@pytest.mark.parametrize(("name", "overlap"), [("average", False), ("average", True), ("slowmo", True)])
def test_what_is_rounded_here_is_what_is_rounded_on_the_way(wire: str, name: str, overlap: bool) -> None:
    with LocalWorkers(RECIPE, shards_of(3), TEST, wire) as local:
        here = rounds(local, name, overlap)
    with in_process(RECIPE, shards_of(3), TEST, wire=wire) as workers:
        there = rounds(workers, name, overlap)
    assert [digest(done.weights) for done in here] == [digest(done.weights) for done in there]
    with LocalWorkers(RECIPE, shards_of(3), TEST) as exact:
        assert digest(rounds(exact, name, overlap)[-1].weights) != digest(here[-1].weights)


@pytest.mark.parametrize("wire", ["bfloat16", "int8"])
def test_elastic_averaging_is_rounded_too(wire: str) -> None:
    with LocalWorkers(RECIPE, shards_of(1), TEST, wire) as local:
        here = rounds(local, "easgd", overlap=False)
    with in_process(RECIPE, shards_of(1), TEST, wire=wire) as workers:
        there = rounds(workers, "easgd", overlap=False)
    assert digest(here[-1].weights) == digest(there[-1].weights)
