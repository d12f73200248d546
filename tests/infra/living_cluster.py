"""A cluster under a job, by the command alone, on hosts of either kind; and what of it goes on meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from infra.local import LocalCloud, clean, open_cloud
from infra.local.hosts.processes import HOME_MARK
from tests.infra.local.conftest import client

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from infra.cli import main; main()"]
DAEMONS = ("org.apache.spark.deploy.master.Master", "org.apache.spark.deploy.worker.Worker")
JOB = (
    "--data",
    "synthetic",
    "--rounds",
    "100000",
    "--tau",
    "2",
    "--test-every",
    "0",
    "--join-deadline",
    "300",
)
ALL = {"master", *(f"worker-{number}" for number in range(1, 5))}


class LivingCluster:
    """``kind``: of the hosts, processes or namespaces. Everything is below ``home``."""

    name = "life"

    def __init__(self, home: Path, kind: str) -> None:
        self.home, self.kind = home, kind
        self.job = ""

    def run(self, *words: str, status: int = 0, seconds: float = 400.0) -> str:
        """What the command says."""
        ran = subprocess.run(
            [*COMMAND, *words],
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "SPARKNET_EC2_HOME": str(self.home), "SPARKNET_EC2_HOSTS": self.kind},
        )
        assert ran.returncode == status, ran.stdout + ran.stderr
        return ran.stdout

    @property
    def cloud(self) -> LocalCloud:
        cloud = open_cloud(self.home, start=False)
        assert cloud is not None
        return cloud

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """By name."""
        found = json.loads(self.run("status", self.name, "--json"))["status"]["cluster"]
        return {one["name"]: one for one in (found["master"], *found["workers"])}

    def kill_healer(self) -> None:
        """As the kernel would that has no memory left."""
        master = self.nodes["master"]["id"]
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if "infra.cli.healer" in process.cmdline() and master in process.environ().values():
                    process.kill()
        if self.kind == "namespaces":  # where sudo took the mark away; the master sees its own alone
            self.on_master("sudo pkill -KILL -f 'infra[.]cli[.]healer' || true")

    @property
    def daemons(self) -> dict[tuple[str, str], int]:
        """Of Spark: (class, address) -> process id."""
        found = {}
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                kind = next((one for one in DAEMONS if one in words), None)
                if kind and process.environ().get(HOME_MARK) == str(self.cloud.folder):
                    found[kind, words[words.index("--host") + 1]] = process.pid
            except psutil.Error:
                continue
        return found

    def start_job(self, shards: int) -> None:
        """A training that does not end by itself."""
        self.run("submit", "MnistApp", "--name", self.name, "--detach", "--", "--workers", str(shards), *JOB)
        self.job = json.loads(self.run("jobs", "--name", self.name, "--json"))[-1]["id"]
        self.until(lambda: len(self.rounds) > 3, "the first rounds", 180)

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """Of the job, as its metrics tell them."""
        file = f"/var/lib/sparknet/jobs/{self.job}/output/metrics.jsonl"
        said = self.on_master(f"cat $SPARKNET_ROOT{file} 2>/dev/null || true")
        return [json.loads(line) for line in said.splitlines() if line.endswith("}")]

    def on_master(self, command: str) -> str:
        said = self.run("run-command", "--name", self.name, "--on", "master", "--", command)
        return said.partition("\n")[2]

    def until_members(self, count: int, seconds: float = 180.0) -> None:
        """Three rounds in a row had so many members."""

        def are_there() -> bool:
            return [len(one["members"]) for one in self.rounds[-3:]] == [count] * 3

        self.until(are_there, f"rounds of {count} members", seconds)

    def until(self, claim: Callable[[], object], what: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not claim():
            assert time.monotonic() < end, f"waited {seconds:g} s for {what}\n{self.story}"
            time.sleep(1)

    @property
    def story(self) -> str:
        """What a failed test is explained by."""
        healer = self.on_master("tail -n 40 $SPARKNET_ROOT/var/log/sparknet-healer.service.log || true")
        job = self.run("logs", self.job, "--name", self.name)[-3000:] if self.job else ""
        return f"{healer}\n{self.run('status', self.name)}\n{job}"

    def client(self) -> Any:
        """boto3's of EC2."""
        return client(self.cloud)

    def reclaim(self, *names: str, notice_seconds: float = 0.0) -> None:
        there = self.nodes
        for name in names:
            self.cloud.control("POST", f"interrupt/{there[name]['id']}", {"notice_seconds": notice_seconds})

    def end(self) -> None:
        clean(self.home)
