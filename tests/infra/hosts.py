"""ScriptedHost: a host that runs nothing, answers what the recipes ask, and remembers it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from infra.ec2.nodes import Node
from infra.errors import CommandFailed
from infra.remote import Result

LINK = "nvme-Amazon_Elastic_Block_Store_"


class ScriptedHost:
    """Answers by the first key of ``answers`` that the command contains; by an empty success otherwise."""

    def __init__(
        self,
        name: str = "worker-1",
        answers: Mapping[str, Result | str] | None = None,
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
        result = Result(exit_status=0, stdout=found, stderr="") if isinstance(found, str) else found
        for line in result.stdout.splitlines() if on_line else ():
            on_line(line)  # type: ignore[misc]
        if check and result.exit_status:
            raise CommandFailed(self.name, command, result.exit_status, result.stderr)
        return result

    def put(self, source: Path, target: PurePosixPath) -> None:
        self.copied.append((source, target))

    def get(self, source: PurePosixPath, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        self.is_closed = True


def node_host(node: Node, workers: int = 1000) -> ScriptedHost:
    """A host of ``node`` on which everything goes well, with its volumes blank and a ready Spark."""
    links = "".join(
        f"{LINK}{volume.replace('-', '')}\tnvme{number}n1\t\t\n"
        for number, volume in enumerate(node.volumes, 1)
    )
    worker = {"state": "ALIVE", "cores": 4, "memory": 7000}
    return ScriptedHost(
        node.name,
        {
            "disk-facts.sh": f'== links\n{links}== lsblk\n{{"blockdevices": []}}\n== mounts\n',
            "machine-facts.sh": "user=ubuntu\ncores=4\nmemory_mib=16000\ngpus=0\n",
            "curl": json.dumps({"status": "ALIVE", "workers": [worker] * workers}),
        },
    )
