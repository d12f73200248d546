"""What reads also speaks JSON: valid, alone on stdout, and with keys that stay."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from infra import cluster
from infra.cluster import Cloud
from infra.events import ignore
from infra.spec import ClusterSpec
from tests.infra.conftest import Run

NODE = {
    "name", "id", "cluster", "role", "state", "reason", "instance_type", "zone", "purchase", "private_ip",
    "public_ip", "launched", "image", "key_pair", "volumes", "tags", "ended",
}  # fmt: skip
COST = {"per_hour", "so_far", "ended", "unknown"}
STORAGE = {"region", "images", "gib", "per_month"}


def told(run: Run, *words: str) -> Any:
    status, out, err = run(*words, "--json")
    assert status == 0, err
    return json.loads(out)


def test_a_plan(run: Run, spec: ClusterSpec) -> None:
    for words in (("plan",), ("launch", "--dry-run")):
        found = told(run, *words, "-s", "3", "-t", "g2.8xlarge,g6.xlarge", spec.name)
        assert set(found) == {
            "spec", "survey", "account", "ssh_from", "pools", "master", "quotas", "problems", "spot_now",
            "on_demand", "storage", "addresses", "worst_case",
        }  # fmt: skip
        assert found["worst_case"] == pytest.approx(12 * found["on_demand"])
        assert found["spec"]["workers"] == 3
        assert set(found["pools"][0]) == {"pool", "spot", "on_demand"}
        codes = {line["code"]: line["is_enough"] for line in found["quotas"]}
        assert codes == {"L-3819A6DF": True, "L-DB2E81BA": True, "L-1216C47A": True}


def test_a_plan_with_a_problem_keeps_its_status(run: Run, simulation: Any, spec: ClusterSpec) -> None:
    simulation.control("POST", "quotas", {"L-1216C47A": 1})
    status, out, _ = run("plan", spec.name, "--json")
    (problem,) = json.loads(out)["problems"]
    assert (status, problem["exit_status"]) == (4, 4)
    assert (
        "The quota L-1216C47A (Standard on-demand vCPUs in us-east-1) is 1, 2 are needed"
        in problem["message"]
    )


def test_a_cluster_its_price_and_its_jobs(
    run: Run, simulated: Cloud, empty: Cloud, spec: ClusterSpec
) -> None:
    made = told(run, "launch", "-s", "1", spec.name)
    assert (made["name"], set(made["master"]), len(made["workers"])) == (spec.name, NODE, 1)
    one, every = told(run, "status", spec.name), told(run, "status", "--all")
    assert every[0]["status"] == one["status"]
    assert set(one) == {
        "status", "asked", "missing", "runs", "notices", "jobs", "cost", "lifetime", "healing",
        "bucket", "left", "troubles",
    }  # fmt: skip
    assert set(one["status"]) == {"cluster", "health"}
    assert one["status"]["health"]["status"] == "ALIVE"
    assert set(one["cost"]) == COST
    found = told(run, "cost", spec.name)
    assert set(found) == {"cluster", "cost", "runs", "images", "past"}
    assert (set(found["cost"]), set(found["images"])) == (COST, STORAGE)
    assert told(run, "jobs", "--name", spec.name) == []
    assert told(run, "gc") == {"orphans": [], "images": [], "buckets": []}
    cluster.destroy(simulated, spec.name, ignore)


def test_orphans(run: Run, empty: Cloud, spec: ClusterSpec) -> None:
    made = cluster.launch(empty, replace(spec, workers=1), ignore)
    past = [{"Key": "sparknet:expires", "Value": "2020-01-01T00:00:00+00:00"}]
    empty.region.change("create_tags", Resources=[node.id for node in made.nodes], Tags=past)
    (orphan,) = told(run, "gc")["orphans"]
    assert set(orphan) == {"cluster", "region", "reason", "resources", "dollars_per_hour", "image"}
    cluster.destroy(empty, spec.name, ignore)


def test_images(run: Run) -> None:
    assert told(run, "image", "list") == []


def test_the_embedded_cloud(alone: Run) -> None:
    assert told(alone, "local", "status") == {"running": False}


def test_a_failure_says_nothing_on_stdout(alone: Run) -> None:
    for words in (["status"], ["cost"], ["jobs"], ["logs"], ["plan", "-s", "0"]):
        status, out, err = alone(*words, "--json")
        assert (status, out) == (2, ""), words
        assert len(err.strip().splitlines()) == 1


def test_the_log_of_a_job_that_is_followed_is_no_json(run: Run) -> None:
    status, _, err = run("logs", "--json", "--follow")
    assert (status, "leave out --follow" in err) == (2, True)
