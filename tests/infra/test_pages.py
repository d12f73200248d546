"""The pages of a cluster: each is named only after it has said what it is."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra import cluster, jobs, pages
from infra.cloud import Cloud
from infra.errors import JobError
from infra.events import ignore
from infra.jobs.link import JOBS
from infra.spec import ClusterSpec
from tests.infra.folder_host import FolderHost, asked

SLEEPS = "#!/bin/bash\nexec sleep 300\n"


@contextmanager
def answering(answers: dict[str, object]) -> Iterator[int]:
    """A server of this machine that says so at these paths, as JSON; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path in answers
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(json.dumps(answers[self.path]).encode() if known else b"somebody else's page")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield int(server.server_address[1])
        server.shutdown()


@pytest.fixture
def running(simulated: Cloud, spec: ClusterSpec, tmp_path: Path) -> Iterator[tuple[Cloud, str, str]]:
    """A cloud, a cluster whose master is a folder, and a job that runs there."""
    cluster.launch(simulated, replace(spec, workers=1), ignore)
    host = FolderHost(tmp_path / "master", SLEEPS)
    cloud = replace(simulated, connect=lambda _node: host)
    program = tmp_path / "mine.py"
    program.write_text("print('mine')\n")
    job = jobs.submit(cloud, spec.name, asked(program, is_queued=True)).job
    end = time.monotonic() + 60
    while [one.state for one in jobs.jobs(cloud, spec.name)] != ["running"]:
        assert time.monotonic() < end, "the job does not run"
        time.sleep(0.05)
    yield cloud, spec.name, job
    jobs.cancel(cloud, spec.name, job)


def page_file(tmp_path: Path, job: str) -> Path:
    return tmp_path / "master" / JOBS / job / "page"


def live(cloud: Cloud, name: str, job: str | None = None) -> pages.Page:
    return pages.of_cluster(cloud, name, job).pages[0]


def test_a_job_is_told_where_to_write_its_address_and_what_it_runs_on(
    running: tuple[Cloud, str, str], tmp_path: Path
) -> None:
    _, name, job = running
    command = (tmp_path / "master" / JOBS / job / "command").read_text()
    assert f"export SPARKNET_PAGE={page_file(tmp_path, job)}\n" in command
    (told,) = (line for line in command.splitlines() if line.startswith("export SPARKNET_CLUSTER="))
    described = json.loads(told.partition("=")[2].strip("'"))
    assert described["name"] == name
    assert sum(described["machines"].values()) == 2
    assert described["per_hour"] > 0
    assert described["simulated"] is False


def test_the_page_of_a_job_is_the_one_that_knows_its_token(
    running: tuple[Cloud, str, str], tmp_path: Path
) -> None:
    cloud, name, job = running
    about = {"title": "LeNet", "round": 3, "rounds": 60, "is_over": False}
    with answering({"/a-token/about": about}) as port:
        page_file(tmp_path, job).write_text(f"http://127.0.0.1:{port}/a-token/\n")
        found = live(cloud, name, job)
        assert (found.name, found.path) == (job, "/a-token/")
        assert found.look("127.0.0.1", port) == "LeNet, round 3 of 60"


def test_a_stranger_at_the_port_of_a_job_is_refused(running: tuple[Cloud, str, str], tmp_path: Path) -> None:
    cloud, name, job = running
    with answering({"/a-token/about": "hello"}) as port:
        page_file(tmp_path, job).write_text(f"http://127.0.0.1:{port}/a-token/\n")
        assert live(cloud, name).look("127.0.0.1", port) is None
        page_file(tmp_path, job).write_text(f"http://127.0.0.1:{port}/another/\n")
        with pytest.raises(OSError, match="404"):
            live(cloud, name).look("127.0.0.1", port)


@pytest.mark.parametrize("address", ["spark://10.0.0.99:7077", "", 7])
def test_the_master_of_another_cluster_is_refused(address: object, running: tuple[Cloud, str, str]) -> None:
    cloud, name, _ = running
    (master, _) = pages.of_cluster(cloud, name).pages
    with answering({"/json/": {"url": address, "activeapps": [], "aliveworkers": 7}}) as port:
        assert master.look("127.0.0.1", port) is None


def test_the_application_that_the_master_runs_is_shown_and_no_other(running: tuple[Cloud, str, str]) -> None:
    cloud, name, _ = running
    (master, application) = pages.of_cluster(cloud, name).pages
    mine = {"url": f"spark://{master.address}:7077", "activeapps": [{"id": "app-1"}], "aliveworkers": 7}
    for identity, shown in (("app-1", "LeNet"), ("local-17", None)):
        listed = [{"id": identity, "name": "LeNet"}]
        with answering({"/json/": mine, "/api/v1/applications": listed}) as port:
            assert master.look("127.0.0.1", port) == "7 workers"
            assert application.look("127.0.0.1", port) == shown


def test_without_a_page_or_a_job_it_is_said_why(running: tuple[Cloud, str, str]) -> None:
    cloud, name, job = running
    assert pages.of_cluster(cloud, name).missing == f"{job} has no live page (yet)"
    jobs.cancel(cloud, name, job)
    assert pages.of_cluster(cloud, name).missing.startswith("no job runs; sparknet-ec2 submit CifarApp")
    with pytest.raises(JobError, match=rf"{job} has ended, .* sparknet-ec2 results {job}"):
        pages.of_cluster(cloud, name, job)
