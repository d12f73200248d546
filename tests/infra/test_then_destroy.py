"""submit --then-destroy: a cluster for a single run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from infra import cluster, lifetime
from infra.cli.target import Target
from infra.cluster import Cloud
from infra.ec2.lifetime import Lifetime
from infra.errors import HostsFailed, HostUnreachable
from infra.events import ignore
from infra.spec import ClusterSpec
from tests.infra.conftest import Run
from tests.infra.folder_host import FolderHost


@pytest.fixture
def extended(
    run: Run, simulated: Cloud, spec: ClusterSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[float | None]:
    """A cluster whose master is a folder; the idle times that its nodes are given."""
    del run
    cluster.launch(simulated, replace(spec, workers=1), ignore)
    host = FolderHost(tmp_path / "master")
    monkeypatch.setattr(Target, "open", lambda *_, **__: replace(simulated, connect=lambda _node: host))
    asked: list[float | None] = []

    def extend(*_: object, idle_minutes: float | None = None) -> Lifetime:
        asked.append(idle_minutes)
        return Lifetime(idle_minutes=idle_minutes or 0)

    monkeypatch.setattr(lifetime, "extend", extend)
    monkeypatch.setattr("infra.diagnosis.require_room", lambda *_: ())
    (tmp_path / "mine.py").write_text("print('mine')\n")
    return asked


@pytest.mark.parametrize("wanted", [0, 3])
def test_the_cluster_is_removed_when_the_job_has_ended_however_it_ends(
    run: Run, extended: list[float | None], simulated: Cloud, spec: ClusterSpec, tmp_path: Path, wanted: int
) -> None:
    words = ["--then-destroy", "--env", f"WANTED_STATUS={wanted}", "-o", str(tmp_path / "left")]
    status, out, err = run("submit", "--name", spec.name, *words, str(tmp_path / "mine.py"))
    assert status == wanted, err
    assert extended == [15]
    assert "without you it ends itself: after 15 minutes without a job" in err
    assert "0 resources left." in out
    assert spec.name not in cluster.names(simulated)


def test_with_detach_the_nodes_end_it(
    run: Run, extended: list[float | None], simulated: Cloud, spec: ClusterSpec, tmp_path: Path
) -> None:
    status, _, err = run(
        "submit", "--name", spec.name, "--then-destroy", "--detach", str(tmp_path / "mine.py")
    )
    assert status == 0, err
    assert extended == [15]
    assert spec.name in cluster.names(simulated)
    cluster.destroy(simulated, spec.name, ignore)


def test_nodes_that_cannot_be_told_are_named_and_nothing_is_removed(
    run: Run,
    extended: list[float | None],
    simulated: Cloud,
    spec: ClusterSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def extend(*_: object, **__: object) -> Lifetime:
        raise HostsFailed({"worker-1": HostUnreachable("worker-1", "no answer")}, 2)

    monkeypatch.setattr(lifetime, "extend", extend)
    status, _, err = run("submit", "--name", spec.name, "--then-destroy", str(tmp_path / "mine.py"))
    assert status == 6
    assert "worker-1" in err
    assert extended == []
    assert spec.name in cluster.names(simulated)
    cluster.destroy(simulated, spec.name, ignore)
