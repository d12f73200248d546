"""One launch of a name at a time: who holds the lock keeps others out; a killed launch does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.cluster import Cloud
from infra.ec2 import cleanup, launch_lock
from infra.errors import ClusterBusy
from infra.events import Event, Note, ignore
from infra.local import LocalCloud

NAME = "locked"


def left_by_a_killed_launch(cloud: Cloud, home: Path) -> str:
    """A lock that nobody will release."""
    return launch_lock.acquire(
        cloud.region, NAME, launch_lock.LocalTokens(home / launch_lock.FOLDER / cloud.region.name / NAME)
    )


def test_who_comes_second_is_told_who_is_there_and_leaves_no_trace(simulated: Cloud, tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    with launch_lock.acquired(simulated.region, NAME, here, ignore) as lock:
        with (
            pytest.raises(
                ClusterBusy, match=r"A launch of locked is under way, by \S+ on \S+ since 20"
            ) as busy,
            launch_lock.acquired(simulated.region, NAME, elsewhere, ignore),
        ):
            pass
        assert busy.value.exit_status == 2
        assert [one.id for one in cleanup.remaining(simulated.region, NAME)] == [lock]
    assert cleanup.remaining(simulated.region, NAME) == []
    assert list(tmp_path.rglob(f"*/{launch_lock.FOLDER}")) == []


def test_a_lock_that_a_killed_launch_left_is_ones_own_here_and_valid_elsewhere(
    simulated: Cloud, tmp_path: Path
) -> None:
    old = left_by_a_killed_launch(simulated, tmp_path / "here")
    with (
        pytest.raises(ClusterBusy),
        launch_lock.acquired(simulated.region, NAME, tmp_path / "elsewhere", ignore),
    ):
        pass
    with launch_lock.acquired(simulated.region, NAME, tmp_path / "here", ignore) as new:
        assert new != old
    assert launch_lock.find(simulated.region, NAME) is None


def test_a_lock_is_valid_for_an_hour(
    simulated: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as long_ago:
        long_ago.setattr(launch_lock, "VALID_HOURS", -0.1)
        left_by_a_killed_launch(simulated, tmp_path / "here")
    with launch_lock.acquired(simulated.region, NAME, tmp_path / "elsewhere", ignore):
        pass
    assert launch_lock.find(simulated.region, NAME) is None


def test_a_lock_that_cannot_be_released_is_no_failure(
    simulation: LocalCloud, simulated: Cloud, tmp_path: Path
) -> None:
    told: list[Event] = []
    with launch_lock.acquired(simulated.region, NAME, tmp_path, told.append):
        simulation.control(
            "POST", "faults", [{"action": "DeleteLaunchTemplate", "code": "UnauthorizedOperation"}]
        )
    assert [type(event) for event in told] == [Note]
    with launch_lock.acquired(simulated.region, NAME, tmp_path, ignore):
        pass
    assert cleanup.remaining(simulated.region, NAME) == []
