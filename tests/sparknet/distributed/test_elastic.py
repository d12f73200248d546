"""Elastic averaging over real sockets: everybody at its own pace."""

from __future__ import annotations

from sparknet import easgd
from sparknet.training import Settings
from tests.sparknet.distributed.fixtures import (
    TEST,
    shards_of,
    slowly,
    wait_for,
)
from tests.sparknet.distributed.in_process import in_process
from tests.sparknet.small import small_recipe


def test_nobody_waits_for_anybody_in_elastic_averaging() -> None:
    with in_process(small_recipe(), shards_of(3)[:2], TEST, workers=3) as workers:
        workers.join(2, shards_of(3)[2], 2, small_recipe(replica=slowly))
        elastic = easgd.Elastic(workers.initial_weights())
        done = list(easgd.train(workers, Settings(rounds=30, tau=5, test_every=15), elastic))
    counts = [sum(report.member == k for r in done for report in r.reports) for k in range(3)]
    assert counts[2] < min(counts[:2]) / 2
    assert done[-1].accuracy is not None
    assert done[-1].accuracy > 0.7


def test_elastic_averaging_outlives_its_workers() -> None:
    with in_process(small_recipe(), shards_of(2), TEST) as workers:
        elastic = easgd.Elastic(workers.initial_weights())
        came_back = set()
        lost, joined = list[str](), list[str]()
        for done in easgd.train(workers, Settings(rounds=12, tau=5), elastic):
            lost += done.result.lost
            joined += done.result.joined
            if done.number == 4:
                workers.join(0, shards_of(2)[0], attempt=9)
                wait_for(workers, 9)
            elif done.number > 4:
                came_back |= {report.member for report in done.reports}
    assert came_back == {0, 1}
    assert {name.split(" (")[0] for name in joined[:2]} == {"worker 0", "worker 1"}
    assert any("attempt 9" in name for name in joined)
    assert [name.split(" (")[0] for name in lost] == ["worker 0"]


def test_what_travels_in_elastic_averaging_is_counted_and_who_it_was_is_known() -> None:
    with in_process(small_recipe(), shards_of(2)) as workers:
        size = 4 * workers.initial_weights().size
        for done in easgd.train(workers, Settings(rounds=3, tau=2), easgd.Elastic()):
            exchanges = len(done.reports)
            assert exchanges * size <= done.bytes_sent < exchanges * (size + 1000)
            assert exchanges * size <= done.bytes_received < exchanges * (size + 1000)
            assert set(done.members) == set(done.result.names)
            assert len(done.members) == len(set(done.members))
