"""ScriptedHost: a host that runs nothing, answers what the recipes ask, and remembers it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from infra.ec2.nodes import Node
from infra.errors import CommandFailed
from infra.node.host import LeftOut, Result

Answer = Result | str | Callable[[], str | None]
LINK = "nvme-Amazon_Elastic_Block_Store_"


class ScriptedHost:
    """Answers by the first key of ``answers`` that the command contains; by an empty success otherwise."""

    def __init__(
        self,
        name: str = "worker-1",
        answers: Mapping[str, Answer] | None = None,
        root: PurePosixPath = PurePosixPath("/"),  # noqa: B008 - immutable
    ) -> None:
        self.name, self.root = name, root
        self.answers = dict(answers or {})
        self.ran: list[str] = []
        self.stdin: dict[str, str] = {}
        self.copied: list[tuple[Path, PurePosixPath]] = []
        self.is_closed = False

    def run(
        self,
        command: str,
        *,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout_seconds: float,
        on_line: Callable[[str], None] | None = None,
        check: bool = True,
    ) -> Result:
        self.ran.append(command)
        if stdin is not None:
            self.stdin[command] = stdin
        found = next((answer for key, answer in self.answers.items() if key in command), "")
        found = (found() or "") if callable(found) else found
        result = Result(exit_status=0, stdout=found, stderr="") if isinstance(found, str) else found
        for line in result.stdout.splitlines() if on_line else ():
            on_line(line)  # type: ignore[misc]
        if check and result.exit_status:
            raise CommandFailed(self.name, command, result.exit_status, result.stderr)
        return result

    def put(self, source: Path, target: PurePosixPath) -> None:
        self.copied.append((source, target))

    def get(self, source: PurePosixPath, target: Path) -> tuple[LeftOut, ...]:
        target.mkdir(parents=True, exist_ok=True)
        return ()

    def pipe(
        self, command: str, *, source: Iterable[bytes], sink: Callable[[bytes], None], silence_seconds: float
    ) -> None:
        self.ran.append(command)
        self.stdin[command] = b"".join(source).decode(errors="replace")

    def close(self) -> None:
        self.is_closed = True


class ScriptedCluster:
    """Hosts on which everything goes well: volumes are blank, and a worker that was started is alive."""

    def __init__(self) -> None:
        self.started: set[str] = set()  # addresses of workers
        self.busy: set[str] = set()  # addresses of those on which a job runs
        self.hosts: dict[str, ScriptedHost] = {}

    def connect(self, node: Node) -> ScriptedHost:
        links = "".join(
            f"{LINK}{volume.replace('-', '')}\tnvme{number}n1\t\t\n"
            for number, volume in enumerate(node.volumes, 1)
        )
        host = self.hosts[node.name] = ScriptedHost(
            node.name,
            {
                "checks.py facts": lambda: account_of(host),
                "checks.py reach": "{}",
                "checks.py disks": '{"folders": []}',
                "date +%s.%N": lambda: str(time.time()),
                "disk-facts.sh": f'== links\n{links}== lsblk\n{{"blockdevices": []}}\n== mounts\n',
                "machine-facts.sh": "user=ubuntu\ncores=4\nmemory_mib=16000\ngpus=0\n",
                "sparknet-worker.service sparknet-worker": lambda: self.started.add(node.private_ip),
                "GET /json/": self.page,
            },
        )
        return host

    def page(self) -> str:
        workers = [
            {
                "state": "ALIVE",
                "host": one,
                "port": 40000,
                "cores": 4,
                "memory": 7000,
                "coresused": 4 * (one in self.busy),
            }
            for one in sorted(self.started)
        ]
        return json.dumps({"status": "ALIVE", "workers": workers})


def account_of(host: ScriptedHost) -> str:
    """What checks.py prints where all is well; its folders are the words of the command, each mounted."""
    asked = next(command for command in reversed(host.ran) if " facts" in command)
    folders = asked.partition(" facts")[2].split()
    return json.dumps(
        {
            "python": "3.11.7",
            "trainer": "0123456789ab",
            "packages": {"torch": "2.9.0", "pyspark": "4.3.0", "numpy": "2.4.6"},
            "cuda": "12.8",
            "driver": "580.105.08",
            "gpus": [{"name": "NVIDIA L4", "error": ""}],
            "folders": [
                {"path": one, "mount_point": str(PurePosixPath(one).parent), "error": ""} for one in folders
            ],
        }
    )


def made_up_nodes(workers: int) -> list[Node]:
    """A master and ``workers`` workers that are only names."""
    master = Node(
        name="master",
        id="i-0",
        cluster="made-up",
        role="master",
        state="running",
        reason="",
        instance_type="m6i.large",
        zone="us-east-1a",
        purchase="on-demand",
        private_ip="10.0.0.1",
        public_ip="203.0.113.1",
        launched="2026-11-01T00:00:00+00:00",
        image="ami-0",
        key_pair="",
        volumes=(),
        tags={},
    )
    others = [
        replace(
            master,
            name=f"worker-{number}",
            id=f"i-{number}",
            role="worker",
            instance_type="g6.xlarge",
            purchase="spot",
            private_ip=f"10.0.0.{number + 1}",
        )
        for number in range(1, workers + 1)
    ]
    return [master, *others]
