"""One launch of a name at a time: who holds the fence keeps others out, and a fence of the dead does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.cluster import Cloud
from infra.ec2 import cleanup, launch_lock
from infra.errors import ClusterBusy
from infra.events import Event, Note, ignore
from infra.local import LocalCloud

NAME = "fenced"


def left_by_a_killed_launch(cloud: Cloud, home: Path) -> str:
    """A fence that nobody will give back."""
    return launch_lock._take(
        cloud.region, NAME, launch_lock._Words(home / "fences" / cloud.region.name / NAME)
    )


def test_who_comes_second_is_told_who_is_there_and_leaves_no_trace(simulated: Cloud, tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    with launch_lock.held(simulated.region, NAME, here, ignore) as held:
        with (
            pytest.raises(
                ClusterBusy, match=r"A launch of fenced is under way, by \S+ on \S+ since 20"
            ) as busy,
            launch_lock.held(simulated.region, NAME, elsewhere, ignore),
        ):
            pass
        assert busy.value.exit_status == 2
        assert [one.id for one in cleanup.remaining(simulated.region, NAME)] == [held]
    assert cleanup.remaining(simulated.region, NAME) == []
    assert list(tmp_path.rglob("*/fences")) == []


def test_a_fence_that_a_killed_launch_left_is_ones_own_here_and_counts_elsewhere(
    simulated: Cloud, tmp_path: Path
) -> None:
    old = left_by_a_killed_launch(simulated, tmp_path / "here")
    with pytest.raises(ClusterBusy), launch_lock.held(simulated.region, NAME, tmp_path / "elsewhere", ignore):
        pass
    with launch_lock.held(simulated.region, NAME, tmp_path / "here", ignore) as new:
        assert new != old
    assert launch_lock.find(simulated.region, NAME) is None


def test_a_fence_counts_for_an_hour(
    simulated: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as long_ago:
        long_ago.setattr(launch_lock, "LEASE_HOURS", -0.1)
        left_by_a_killed_launch(simulated, tmp_path / "here")
    with launch_lock.held(simulated.region, NAME, tmp_path / "elsewhere", ignore):
        pass
    assert launch_lock.find(simulated.region, NAME) is None


def test_a_fence_that_cannot_be_given_back_is_no_failure(
    simulation: LocalCloud, simulated: Cloud, tmp_path: Path
) -> None:
    told: list[Event] = []
    with launch_lock.held(simulated.region, NAME, tmp_path, told.append):
        simulation.control(
            "POST", "faults", [{"action": "DeleteLaunchTemplate", "code": "UnauthorizedOperation"}]
        )
    assert [type(event) for event in told] == [Note]
    with launch_lock.held(simulated.region, NAME, tmp_path, ignore):
        pass
    assert cleanup.remaining(simulated.region, NAME) == []
