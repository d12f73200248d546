"""The healer's program, on the master: ``python -m infra.cli.healer FOLDER``, by sparknet-healer.service.

    FOLDER/settings.json    what it is told (infra.healer_settings)
    FOLDER/home             its key, which ``public-key FOLDER`` makes, and the keys that newcomers have shown
    FOLDER/code             this code

What it does is one line each on standard output.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.cloud import Cloud
from infra.ec2 import keys
from infra.ec2.nodes import Node
from infra.ec2.region import Region
from infra.events import Event, NodeProgress, NodeReplaced, Note, PoolAnswered, Retrying
from infra.healer_settings import HealerSettings
from infra.healing import Healer
from infra.node.host import Host
from infra.node.ssh import SSHHost

LOOK_SECONDS = 5.0
CALL_SECONDS = 60.0  # with all its repetitions: the next look is soon
LOCAL_POLL_SECONDS = 0.25
LOGIN_SECONDS = 240.0  # the key comes at the end of the first boot


def main(words: list[str]) -> int:
    if words[:1] == ["public-key"] and len(words) == 2:
        sys.stdout.write(f"{keys.own_key(_key(Path(words[1])))}\n")
        return 0
    if len(words) != 1:
        sys.stderr.write("usage: python -m infra.cli.healer [public-key] FOLDER\n")
        return 2
    folder = Path(words[0])
    settings = HealerSettings.parse((folder / "settings.json").read_text(encoding="utf-8"))
    healer = Healer(_cloud(settings, folder), settings.recipe, _log)
    _log(Note(text=f"looks after {settings.recipe.spec.name}"))
    while True:
        healer.step()
        time.sleep(LOOK_SECONDS)


def _cloud(settings: HealerSettings, folder: Path) -> Cloud:
    """The cloud as the master sees it, with the credentials of its profile."""
    spec = settings.recipe.spec
    region = Region(
        spec.region, endpoint_url=settings.endpoint_url or None, emit=_log, retry_seconds=CALL_SECONDS
    )
    more: dict[str, Any] = {"poll_seconds": LOCAL_POLL_SECONDS} if settings.cloud == "local" else {}
    return Cloud(
        kind=settings.cloud,
        region=region,
        connect=_through(settings.home) if settings.home else lambda node: _ssh(settings, folder, node),
        caller_address=lambda: "",
        home=folder / "home",
        login_seconds=LOGIN_SECONDS,
        **more,
    )


def _ssh(settings: HealerSettings, folder: Path, node: Node) -> Host:
    spec = settings.recipe.spec
    return SSHHost(
        node.name,
        node.private_ip,
        user=spec.access.user,
        key=_key(folder),
        known_hosts=keys.known_hosts_file(folder / "home", spec.region, node.cluster),
    )


def _through(home: str) -> Callable[[Node], Host]:
    """Hosts of an embedded cloud that are processes of this machine."""
    from infra.errors import HostUnreachable
    from infra.local import open_cloud

    def connect(node: Node) -> Host:
        local = open_cloud(Path(home), start=False)
        if local is None:
            raise HostUnreachable(node.name, "its embedded cloud has ended")
        return local.connect(node.id)

    return connect


def _key(folder: Path) -> Path:
    return folder / "home/key.pem"


def _log(event: Event) -> None:
    match event:
        case Note(text=text):
            said = text
        case NodeReplaced(node=node, id=identity, why=why):
            said = f"{node} ({identity}) is ended: {why}"
        case NodeProgress(node=node, phase=phase):
            said = f"{node}: {phase}"
        case PoolAnswered(purchase=purchase, instance_type=kind, zone=zone, answer=answer):
            said = f"{purchase} {kind} {zone}: {answer}"
        case Retrying(operation=operation, code=code):
            said = f"{operation} answers {code}; it is made again"
        case _:
            return
    sys.stdout.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {said}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
