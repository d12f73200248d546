"""The server process of an embedded cloud: ``python -m infra.local.server --folder DIR [--port N]
[--scenario FILE]``.

It forks away from whoever started it, listens on 127.0.0.1, writes the state file, says ``{"ready": true}``
on standard output (or ``{"error": ...}``), and serves until it is stopped. ``daemon.py`` is the other side.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import InfraError, UsageError

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler

    from infra.local.hosts.namespaces.driver import Namespaces
    from infra.local.simulation import Simulation

LEASE_SECONDS = 2.0  # between looks at the state file, which is the server's right to live

log = logging.getLogger(__name__)


def main() -> None:
    options = _options()
    if os.fork() != 0:
        os._exit(0)  # the starter's child ends here; the server has no parent to end with
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    try:
        serve(Path(options.folder), options.port, Path(options.scenario) if options.scenario else None)
    except InfraError as error:
        _say({"error": str(error)})
        os._exit(1)
    os._exit(0)  # nothing is left to do, and freeing moto's data would take a second


def serve(folder: Path, port: int, scenario_file: Path | None) -> None:
    """Serve until it is stopped. Raises UsageError for a bad scenario or a port that is taken."""
    from infra.local.models.scenario import Scenario

    scenario = Scenario.read(scenario_file) if scenario_file else Scenario()
    _become_subreaper()
    runtime = Path(tempfile.mkdtemp(prefix="sparknet-"))
    stopped = threading.Event()
    try:
        prepare_moto(runtime)
        cloud, server = _make(folder, runtime, scenario, port, stopped)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: stopped.set())
        threading.Thread(target=server.serve_forever, name="server", daemon=True).start()
        _announce(folder, runtime, cloud, server.port)
        while not stopped.wait(LEASE_SECONDS) and _owns(folder):
            pass
        cloud.end()
        server.server_close()  # connections still open end with the process
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
        if _owns(folder):
            (folder / "endpoint.json").unlink(missing_ok=True)


def prepare_moto(runtime: Path) -> None:
    """Set what moto reads when it is imported; its images go to a file in the folder ``runtime``."""
    from infra import service_models
    from infra.local.models import published_images

    service_models.install()
    path = runtime / "images.json"
    published_images.write(path)
    os.environ["MOTO_AMIS_PATH"] = str(path)
    for name in ("ENABLE_AMI_VALIDATION", "EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "ENABLE_KEYPAIR_VALIDATION"):
        os.environ[f"MOTO_{name}"] = "1"
    # moto makes botocore sessions; they must not meet the user's
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        os.environ.pop(name, None)


def _make(
    folder: Path, runtime: Path, scenario: Any, port: int, stopped: threading.Event
) -> tuple[Simulation, BaseWSGIServer]:
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import make_server

    from infra.local.http.app import App
    from infra.local.simulation import Simulation

    class Handler(MotoRequestHandler):
        protocol_version = "HTTP/1.1"  # a connection serves many calls

        def log(self, *_: object, **__: object) -> None:
            """Calls are in the call log."""

        def date_time_string(self, _timestamp: float | None = None) -> str:
            """The simulated moment: who asks goes by the header of the answer."""
            return cloud.clock.date()

        def connection_dropped(self, *_: object, **__: object) -> None:
            self.close_connection = True

    key = f"AKIASIM{secrets.token_hex(8).upper()[:13]}"
    cloud = Simulation(folder, runtime, scenario, key, os.environ.get("AWS_DEFAULT_REGION", "us-east-1"))
    try:
        server = make_server(
            "127.0.0.1", port, App(cloud, stopped.set), threaded=True, request_handler=Handler
        )
    except (OSError, SystemExit):
        cloud.end()
        raise UsageError(
            f"port {port} of 127.0.0.1 is taken; choose another one, or 0 for any free one"
        ) from None
    cloud.url = f"http://127.0.0.1:{server.port}"
    if cloud.namespaces is not None:
        _serve_hosts(cloud.namespaces, server.app, Handler)
    return cloud, server


def _serve_hosts(namespaces: Namespaces, app: Any, handler: type[WSGIRequestHandler]) -> None:
    """The same calls for hosts, whose network does not lead to 127.0.0.1 of this machine."""
    from werkzeug.serving import make_server

    with namespaces.listen_for_calls() as listener:
        address, port = listener.getsockname()
        server = make_server(address, port, app, threaded=True, request_handler=handler, fd=listener.fileno())
    threading.Thread(target=server.serve_forever, name="calls of hosts", daemon=True).start()


def _owns(folder: Path) -> bool:
    """False once the state file is gone or another server's: nobody could find this one any more."""
    from infra.local.home import Home

    endpoint = Home(folder).read_endpoint()
    return endpoint is not None and endpoint.pid == os.getpid()


def _announce(folder: Path, runtime: Path, cloud: Simulation, port: int) -> None:
    import psutil

    from infra.local.home import Endpoint, Home

    endpoint = Endpoint(
        pid=os.getpid(),
        port=port,
        started=psutil.Process().create_time(),
        access_key_id=cloud.access_key_id,
        region=cloud.region,
        runtime=str(runtime),
    )
    Home(folder).write_endpoint(endpoint)
    _say({"ready": True})


def _say(answer: dict[str, object]) -> None:
    """The one line the starter waits for; afterwards standard output is the log."""
    os.write(1, (json.dumps(answer) + "\n").encode())
    os.dup2(2, 1)


def _become_subreaper() -> None:
    from infra.local.hosts.init import become_subreaper

    become_subreaper()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--scenario")
    return parser.parse_args()


if __name__ == "__main__":
    main()
