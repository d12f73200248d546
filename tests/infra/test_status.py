"""What ``status`` and ``cost`` say is true, whatever has become of the nodes, and whoever asks from where."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra import bill, cluster, history, orphans, status
from infra.cloud import Cloud
from infra.ec2 import nodes
from infra.errors import ClusterNotFound, Interrupted, Leftovers
from infra.events import ignore
from infra.history import Run
from infra.jobs import progress
from infra.local import LocalCloud
from infra.spec import ClusterSpec
from tests.infra.conftest import Run as Command
from tests.infra.folder_host import FolderHost
from tests.infra.hosts import ScriptedHost
from tests.infra.test_jobs import CANCEL, started, wait_for

DEAR = 0.5  # dollars an hour of a spot worker
FIXED = 0.005  # of a public address


@pytest.fixture
def priced(empty: Cloud, simulation: LocalCloud) -> Cloud:
    simulation.control("POST", "spot_prices", [{"price": DEAR}])
    return empty


def hours(simulation: LocalCloud, number: float) -> None:
    simulation.control("POST", "clock", {"advance_seconds": number * 3600})


def reclaim(cloud: Cloud, simulation: LocalCloud, name: str) -> str:
    """Let EC2 take back a worker of the cluster, at once; its id."""
    worker = cluster.find(cloud, name).workers[0]
    simulation.control("POST", f"interrupt/{worker.id}", {"notice_seconds": 0})
    nodes.wait_gone(cloud.region, name, lambda node: node.id == worker.id, deadline_seconds=20)
    return worker.id


def look(cloud: Cloud, name: str) -> bill.Bill:
    found = bill.look(cloud, name)
    assert found is not None
    return found


def run_of(cloud: Cloud, name: str, identity: str) -> Run:
    return next(run for run in look(cloud, name).runs if run.id == identity)


def test_a_reclaimed_node_is_shown_and_paid_for_as_long_as_the_cluster_is_there(
    priced: Cloud, simulation: LocalCloud, spec: ClusterSpec, tmp_path: Path
) -> None:
    cluster.launch(priced, replace(spec, workers=2), ignore)
    hours(simulation, 3)
    lost = reclaim(priced, simulation, spec.name)
    run = run_of(priced, spec.name, lost)
    assert (run.state, run.why, run.is_exact) == ("terminated", "reclaimed by EC2", True)
    ended = look(priced, spec.name).cost.ended
    assert ended == pytest.approx(3 * (DEAR + FIXED), rel=0.06)
    hours(simulation, 0.1)
    look(priced, spec.name)  # settles the end in the tags
    hours(simulation, 2)  # and EC2 forgets
    assert lost not in {node.id for node in nodes.describe(priced.region, spec.name)}
    for home in (priced.home, tmp_path / "another machine"):
        there = replace(priced, home=home)
        assert run_of(there, spec.name, lost).ended == run.ended
        assert run_of(there, spec.name, lost).why == "reclaimed by EC2"
        cost = look(there, spec.name).cost
        assert cost.ended == pytest.approx(ended, rel=0.01)
        assert cost.so_far > ended + 5 * DEAR
    cluster.destroy(priced, spec.name, ignore)


def test_the_page_names_what_is_missing_why_and_since_when(
    run: Command, priced: Cloud, simulation: LocalCloud, spec: ClusterSpec
) -> None:
    cluster.launch(priced, replace(spec, workers=2), ignore)
    lost = reclaim(priced, simulation, spec.name)
    code, out, err = run("status", spec.name)
    assert code == 0, err
    (row,) = (line for line in out.splitlines() if lost in line)
    assert " ended " in row
    assert "UTC: reclaimed by EC2" in row
    assert f"worker-1 of 2 workers missing; sparknet-ec2 repair --name {spec.name}" in out
    assert "ends itself: at 20" in out
    assert "healing: off" in out
    told = json.loads(run("status", spec.name, "--json")[1])
    assert (told["asked"], told["missing"]) == (["worker-1", "worker-2"], ["worker-1"])
    assert told["lifetime"]["expires"].startswith("20")
    assert [one["id"] for one in told["runs"] if one["ended"]] == [lost]
    cluster.destroy(priced, spec.name, ignore)


def test_watching_looks_again_until_it_is_interrupted_which_is_no_failure(
    run: Command, priced: Cloud, spec: ClusterSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.launch(priced, replace(spec, workers=1), ignore)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise Interrupted("stopped by SIGINT")

    monkeypatch.setattr("infra.cli.status.time", SimpleNamespace(sleep=sleep))
    code, out, err = run("status", spec.name, "--watch", "--interval", "3")
    assert (code, waits, out.count(f"{spec.name} in us-east-1")) == (0, [3, 3], 2), err
    waits.clear()
    code, out, _ = run("status", spec.name, "--watch", "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert [one["status"]["cluster"]["name"] for one in told] == [spec.name] * 2
    cluster.destroy(priced, spec.name, ignore)


def test_a_node_that_was_taken_away_says_by_whom(priced: Cloud, spec: ClusterSpec) -> None:
    made = cluster.launch(priced, replace(spec, workers=2), ignore)
    cluster.launch(priced, replace(spec, workers=1), ignore)
    left = {node.id for node in cluster.find(priced, spec.name).nodes}
    (gone,) = {node.id for node in made.nodes} - left
    assert run_of(priced, spec.name, gone).why.startswith("removed by ")
    assert status.status(priced, spec.name).missing == ()
    cluster.destroy(priced, spec.name, ignore)


def test_an_end_that_nobody_saw_is_paid_for_up_to_the_moment_it_can_have_been(
    priced: Cloud, simulation: LocalCloud, spec: ClusterSpec
) -> None:
    cluster.launch(priced, replace(spec, workers=1), ignore)
    hours(simulation, 1)
    lost = reclaim(priced, simulation, spec.name)
    hours(simulation, 4)
    run = run_of(priced, spec.name, lost)
    assert (run.is_exact, run.why) == (False, "nobody saw its end")
    assert look(priced, spec.name).cost.ended == pytest.approx(4 * (DEAR + FIXED), rel=0.06)
    cluster.destroy(priced, spec.name, ignore)


def test_of_two_clusters_of_one_name_each_pays_for_its_own_nodes(
    priced: Cloud, simulation: LocalCloud, spec: ClusterSpec
) -> None:
    for _ in range(2):
        cluster.launch(priced, replace(spec, workers=1), ignore)
        hours(simulation, 0.5)
        assert look(priced, spec.name).cost.so_far < 0.6 * (DEAR + 0.2)
        cluster.destroy(priced, spec.name, ignore, known=look(priced, spec.name))
    first, second = history.lives(priced.home, priced.region.name, spec.name)
    assert first.destroyed < second.created or first.destroyed[:16] == second.created[:16]
    assert not {run.id for run in first.runs} & {run.id for run in second.runs}


def test_after_an_interrupted_destroy_everything_left_is_named_and_the_bill_is_right(
    run: Command, priced: Cloud, simulation: LocalCloud, spec: ClusterSpec
) -> None:
    cluster.launch(priced, replace(spec, workers=2), ignore)
    hours(simulation, 2)
    before = look(priced, spec.name).cost.so_far
    refused = [{"action": "DeleteSecurityGroup", "code": "UnauthorizedOperation", "times": 50}]
    simulation.control("POST", "faults", refused)
    code, _, err = run("destroy", spec.name, "-y")
    assert code == Leftovers.exit_status, err
    code, out, _ = run("status", spec.name)
    assert code == 0
    assert "No node is left, but of" in out
    assert "security group sg-" in out
    assert f"sparknet-ec2 destroy --name {spec.name}" in out
    hours(simulation, 0.5)
    told = json.loads(run("cost", spec.name, "--json")[1])["cost"]
    assert told["so_far"] == pytest.approx(before, rel=0.02)
    assert told["per_hour"] == 0
    (orphan,) = orphans.find(priced.region)
    assert (orphan.cluster, orphan.reason) == (spec.name, "its destroy did not come to its end")
    simulation.control("DELETE", "faults")
    assert "0 resources left." in run("gc", "--yes")[1]
    with pytest.raises(ClusterNotFound, match="the last one ended by"):
        status.status(priced, spec.name)
    assert history.lives(priced.home, priced.region.name, spec.name)[-1].destroyed


def test_what_a_destroy_that_was_killed_has_left_is_an_orphan_at_once(
    priced: Cloud, spec: ClusterSpec
) -> None:
    made = cluster.launch(priced, replace(spec, workers=1), ignore)
    nodes.terminate(priced.region, [node.id for node in made.nodes])
    nodes.wait_gone(priced.region, spec.name, lambda _node: True, deadline_seconds=20)
    assert orphans.find(priced.region) == []  # somebody may be at work on it
    group = look(priced, spec.name).group
    assert group is not None
    priced.region.change("delete_security_group", GroupId=group.id)
    assert [one.cluster for one in orphans.find(priced.region)] == [spec.name]
    cluster.destroy(priced, spec.name, ignore)


def test_a_past_cluster_still_says_what_it_had_cost(
    run: Command, priced: Cloud, simulation: LocalCloud, spec: ClusterSpec
) -> None:
    cluster.launch(priced, replace(spec, workers=1), ignore)
    hours(simulation, 2)
    assert run("destroy", spec.name, "-y")[0] == 0
    code, out, err = run("cost", spec.name)
    assert code == 0, err
    (life,) = json.loads(run("cost", spec.name, "--json")[1])["past"]
    assert life["dollars"] == pytest.approx(2 * (DEAR + 0.096 + 2 * FIXED + 2 * 0.02), rel=0.1)
    assert f"${life['dollars']:.2f}" in out
    assert {one["why"] for one in life["runs"]} == {"destroyed"}
    code, _, err = run("cost", "never-was")
    assert (code, "this machine knows of none there was" in err) == (2, True)


def test_a_job_that_runs_is_shown_with_its_round_and_when_it_ends(priced: Cloud, spec: ClusterSpec) -> None:
    cluster.launch(priced, replace(spec, workers=1), ignore)
    state = {
        "round": 30, "rounds": 90, "loss": 1.25, "accuracy": 0.5, "images_per_second": 1971.3,
        "seconds_left": 600.0, "at": "2026-11-30T10:00:00+00:00",
    }  # fmt: skip
    told = f"train-1\t2026-11-30T09:00:00Z\t{json.dumps(state)}\ntrain-2\t2026-11-30T09:00:00Z\t\n"
    master = ScriptedHost("master", {"progress.sh": told})
    first, second = status.status(
        replace(priced, connect=lambda _node: master), spec.name, with_troubles=False
    ).jobs
    assert (first.round, first.rounds, first.loss, first.accuracy) == (30, 90, 1.25, 0.5)
    assert first.ends == "2026-11-30T10:10:00+00:00"
    assert (second.id, second.rounds) == ("train-2", 0)
    assert master.is_closed
    cluster.destroy(priced, spec.name, ignore)


def test_the_progress_of_jobs_is_read_where_their_drivers_write_it(tmp_path: Path) -> None:
    host = FolderHost(tmp_path / "master")
    jobs = tmp_path / "master/var/lib/sparknet/jobs"
    state = {
        "round": 3, "rounds": 9, "loss": None, "accuracy": None, "images_per_second": 10.0,
        "seconds_left": None, "at": "2026-11-30T10:00:00+00:00",
    }  # fmt: skip
    for name, command in (("busy", "sleep 300"), ("new", "sleep 300"), ("over", "exit 0")):
        started(jobs / name, command)
        if name != "new":
            (jobs / name / "progress.json").write_text(json.dumps(state, indent=1))
    wait_for(lambda: (jobs / "over/exit_code").exists() and (jobs / "new/started").exists())
    busy, new = progress.of_running(host)
    assert (busy.id, busy.round, busy.rounds, busy.loss, busy.ends) == ("busy", 3, 9, None, "")
    assert (new.id, new.rounds) == ("new", 0)
    for name in ("busy", "new"):
        subprocess.run(["bash", str(CANCEL), str(jobs / name)], check=True, timeout=20)
    assert progress.of_running(host) == ()


def test_a_history_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    file = tmp_path / "history/us-east-1/c.json"
    file.parent.mkdir(parents=True)
    for text in ("", "[", "{}", "[1]", '[{"runs": 3}]', '[{"cluster": "c"}]'):
        file.write_text(text)
        assert history.lives(tmp_path, "us-east-1", "c") == []


def test_the_newest_clusters_of_a_name_are_kept(tmp_path: Path) -> None:
    for number in range(60):
        history.keep(tmp_path, history.Life(cluster="c", region="r", created=f"2026-01-01T00:00:{number:02}"))
    kept = history.lives(tmp_path, "r", "c")
    assert (len(kept), kept[-1].created[-2:], kept[0].created[-2:]) == (50, "59", "10")
    assert [one.cluster for one in history.all_lives(tmp_path)] == ["c"] * 50


@pytest.mark.parametrize(
    ("code", "ended_by", "expired", "words"),
    [
        ("Server.SpotInstanceTermination", "", False, "reclaimed by EC2"),
        ("Client.InstanceInitiatedShutdown", "", True, "its --max-hours were over"),
        ("Client.InstanceInitiatedShutdown", "", False, "it shut itself down"),
        ("Client.UserInitiatedShutdown", "removed by ann", False, "removed by ann"),
        ("Client.UserInitiatedShutdown", "", False, "ended by a user"),
        ("Server.Whatever", "", False, "Server.Whatever"),
    ],
)
def test_why_a_node_ended_is_said_in_words(
    priced: Cloud, spec: ClusterSpec, code: str, ended_by: str, expired: bool, words: str
) -> None:
    made = cluster.launch(priced, replace(spec, workers=1), ignore)
    assert made.master is not None
    now = priced.region.now()
    expires = now - timedelta(hours=1) if expired else now + timedelta(hours=1)
    known = {**made.master.tags, "sparknet:expires": expires.isoformat()}
    known |= {"sparknet:ended-by": ended_by} if ended_by else {}
    node = replace(made.master, reason=code, state="terminated", ended=now.isoformat(), tags=known)
    assert history.why(node) == words
    cluster.destroy(priced, spec.name, ignore)
