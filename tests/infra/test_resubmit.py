"""A job outlives its master: what was asked for is known elsewhere, and it is asked for again."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra import cluster
from infra.cli.target import Target
from infra.cluster import Cloud
from infra.ec2 import buckets, nodes
from infra.errors import JobError, UsageError
from infra.events import ignore
from infra.jobs import record, resubmission
from infra.jobs.record import Record
from infra.spec import ClusterSpec
from tests.infra.conftest import Run
from tests.infra.folder_host import FolderHost

SPARK = """\
#!/bin/bash
printf 'place %s\\n' "$SPARKNET_CHECKPOINT"
printf 'secret %s\\n' "$MY_TOKEN"
cat data/numbers.txt
printf 'word %s\\n' "$@"
while [ -n "${WAIT_FOR:-}" ] && [ ! -e "$WAIT_FOR" ]; do sleep 0.1; done
"""


@pytest.fixture
def bucket(simulated: Cloud) -> Iterator[str]:
    found = f"sparknet-{secrets.token_hex(6)}"
    yield found
    buckets.remove(simulated.region, found)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "data/numbers.txt").write_text("numbers 1 2 3\n")
    (folder / "main.py").write_text("print('mine')\n")
    (folder / "run.sh").write_text("true\n")
    (folder / "run.sh").chmod(0o755)
    return folder


@pytest.fixture
def typed(run: Run, simulated: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, with a folder as every cluster's master."""
    hosts: dict[str, FolderHost] = {}

    def connect(node: nodes.Node) -> FolderHost:
        if node.id not in hosts:
            hosts[node.id] = FolderHost(tmp_path / "masters" / node.id, spark=SPARK)
        return hosts[node.id]

    monkeypatch.setattr(Target, "open", lambda *_, **__: replace(simulated, connect=connect))
    monkeypatch.setattr("infra.diagnosis.require_room", lambda *_: ())
    monkeypatch.chdir(tmp_path)
    return run


def launch(cloud: Cloud, spec: ClusterSpec, name: str, bucket: str = "") -> cluster.Cluster:
    return cluster.launch(cloud, replace(spec, name=name, workers=1, bucket=bucket), ignore)


def test_a_job_goes_on_at_its_place_on_another_cluster_after_its_master_is_gone(
    typed: Run, simulated: Cloud, spec: ClusterSpec, bucket: str, project: Path, tmp_path: Path
) -> None:
    made = launch(simulated, spec, f"{spec.name}a", bucket)
    words = ["submit", "--name", made.name, "-e", "MY_TOKEN=hush", str(project), "--", "--rate", "a b"]
    status, out, err = typed(*words)
    assert status == 0, err
    (job,) = (one.job for one in record.known(simulated.home))
    place = f"s3://{bucket}/sparknet/us-east-1/{made.name}/{job}"
    assert {f"place {place}", "secret hush", "numbers 1 2 3", "word --rate", "word a b"} <= set(
        out.splitlines()
    )
    key = f"{place.partition(f'{bucket}/')[2]}/record.json"
    assert "hush" not in str(buckets.get(simulated.region, bucket, key))
    assert made.master is not None
    nodes.terminate(simulated.region, [made.master.id])
    (project / "data/numbers.txt").write_text("changed\n")
    launch(simulated, spec, f"{spec.name}b", bucket)
    status, again, err = typed("resubmit", "--name", f"{spec.name}b", job)
    assert status == 0, err
    assert f"it goes on from what is in {place}" in err
    assert again.splitlines()[:3] == out.splitlines()[:3]
    newest = record.known(simulated.home)[-1]
    assert newest.ended == "done"
    listed = typed("jobs", "--past")[1]
    assert job in listed
    assert place in listed
    assert [one["job"] for one in json.loads(typed("jobs", "--past", "--json")[1])] == [job, newest.job]
    assert (newest.goes_on_from, newest.checkpoint, newest.cluster) == (job, place, f"{spec.name}b")
    for name in (made.name, f"{spec.name}b"):
        cluster.destroy(simulated, name, ignore)


def test_another_machine_finds_it_in_the_bucket(
    typed: Run,
    simulated: Cloud,
    spec: ClusterSpec,
    bucket: str,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = launch(simulated, spec, spec.name, bucket)
    assert typed("submit", "--name", made.name, "-e", "MY_TOKEN=hush", str(project))[0] == 0
    (job,) = (one.job for one in record.known(simulated.home))
    elsewhere = replace(simulated, home=tmp_path / "another machine")
    found, content = record.find(elsewhere, job, bucket=bucket)
    assert found.env["MY_TOKEN"] is None
    with pytest.raises(UsageError, match="was given MY_TOKEN, whose value is kept only on the machine"):
        resubmission.request_of(found, content, tmp_path / "scratch", env={})
    request = resubmission.request_of(found, content, tmp_path / "scratch", env={"MY_TOKEN": "new"})
    assert request.env["MY_TOKEN"] == "new"
    assert request.env[record.CHECKPOINT].endswith(job)
    assert (request.program.folder / "data/numbers.txt").read_text() == "numbers 1 2 3\n"
    assert (request.program.folder / "run.sh").stat().st_mode & 0o777 == 0o755
    with pytest.raises(JobError, match="No job nowhere was submitted from this machine"):
        record.find(elsewhere, "nowhere", bucket=bucket)
    monkeypatch.delenv("MY_TOKEN", raising=False)
    cluster.destroy(simulated, made.name, ignore)


def test_one_that_still_runs_is_not_started_twice(
    typed: Run, simulated: Cloud, spec: ClusterSpec, project: Path, tmp_path: Path
) -> None:
    made, end = launch(simulated, spec, spec.name), tmp_path / "end"
    words = ["submit", "--name", made.name, "--detach", "-e", f"WAIT_FOR={end}", str(project)]
    status, out, err = typed(*words)
    assert status == 0, err
    job = out.strip()
    status, _, err = typed("resubmit", "--name", made.name, job)
    assert (status, f"{job} still runs on {made.name}" in err) == (2, True), err
    end.touch()
    assert typed("logs", "--follow", "--name", made.name, job)[0] == 0
    status, out, err = typed("resubmit", "--name", made.name, "--detach", job)
    assert status == 0, err
    assert typed("logs", "--follow", "--name", made.name, out.strip())[0] == 0
    cluster.destroy(simulated, made.name, ignore)


def test_an_app_that_was_told_where_to_save_is_told_to_go_on(tmp_path: Path) -> None:
    def arguments(*words: str) -> tuple[str, ...]:
        old = Record(
            job="j", cluster="c", region="r", submitted="", program={"name": "CifarApp", "is_app": True},
            request={"arguments": list(words)},
        )  # fmt: skip
        return resubmission.request_of(old, b"", tmp_path, env={}).arguments

    assert arguments("--tau", "5") == ("--tau", "5")
    assert arguments("--checkpoint", "s3://b/x") == ("--checkpoint", "s3://b/x", "--resume")
    assert arguments("--checkpoint=x", "--resume") == ("--checkpoint=x", "--resume")


def test_a_bucket_is_made_named_kept_and_removed_when_asked(
    run: Run, simulated: Cloud, spec: ClusterSpec, bucket: str
) -> None:
    status, _, err = run("launch", "-s", "1", "--name", spec.name, "--bucket", bucket)
    assert (status, f"The bucket {bucket} is made" in err) == (0, True), err
    made = cluster.find(simulated, spec.name)
    assert made.master is not None
    profiles = simulated.region.read("describe_iam_instance_profile_associations")
    there = {one["InstanceId"] for one in profiles["IamInstanceProfileAssociations"]}
    assert made.master.id in there
    buckets.put(simulated.region, bucket, "a", b"x" * 2000)
    told = json.loads(run("status", spec.name, "--json")[1])
    assert told["bucket"] == bucket
    assert f"jobs save in: s3://{bucket}" in run("status", spec.name)[1]
    status, out, _ = run("destroy", spec.name, "-y")
    assert status == 0
    assert f"kept: the bucket {bucket} with 1 object" in out
    assert "about $0.00 a month; destroy --bucket removes it." in out
    assert f"kept for jobs: the bucket {bucket}" in run("gc")[1]
    assert bucket in [one["name"] for one in json.loads(run("gc", "--json")[1])["buckets"]]
    status, out, err = run("destroy", spec.name, "-y", "--bucket")
    assert (status, f"the bucket {bucket} is gone, with 1 object." in out) == (0, True), err
    assert not buckets.is_ours(simulated.region, bucket)
