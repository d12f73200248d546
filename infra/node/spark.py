"""Spark: Spark standalone on the nodes, out of pyspark's own jars: configuration, start, stop, readiness.

    master   sparknet-master.service   spark://<private address>:7077, its page at :8080
    worker   sparknet-worker.service   as many cores and as much memory as the node has, its page at :8081

Everything listens on the private address. Who talks to it must know the cluster's secret, which lives in
``opt/sparknet/conf`` of the nodes, mode 0600, and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from shlex import quote
from typing import Any

from infra.errors import DeadlineExceeded, SetupError, last_lines
from infra.node import bootstrap
from infra.node.host import Host, read_text, write_text
from infra.polling import Pending, poll

MASTER_UNIT, WORKER_UNIT = "sparknet-master", "sparknet-worker"
MASTER_PORT, MASTER_PAGE = 7077, 8080
APPLICATION_PAGE = 4040  # of the job that runs, on the master
CONF = PurePosixPath("opt/sparknet/conf")
SECRET = CONF / "secret"
START_UNIT = "spark/start-unit.sh"
MOST_OF_A_NODE = 0.8  # of its memory may be offered to executors that are as large elsewhere
LEAST_MEMORY_MIB = 512  # Spark refuses executors below 450 MiB
DAEMON_MEMORY_MIB = 512
POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class NodeResources:
    """What Spark may use of a node."""

    user: str
    cores: int
    memory_mib: int
    gpus: int

    @property
    def spark_memory_mib(self) -> int:
        """Half of the memory that the daemon leaves; Python workers and their nets live in the other half."""
        return max(LEAST_MEMORY_MIB, (self.memory_mib - DAEMON_MEMORY_MIB) // 2)

    def offered_memory_mib(self, executor_memory_mib: int) -> int:
        """What its worker offers where executors have ``executor_memory_mib`` already (0: they have no size).

        As much as they have even where that is somewhat more than half: with less it would be given none, and
        types of the same nominal memory differ by a few MiB.
        """
        is_enough = executor_memory_mib <= MOST_OF_A_NODE * (self.memory_mib - DAEMON_MEMORY_MIB)
        return max(self.spark_memory_mib, executor_memory_mib if is_enough else 0)


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """What the configuration of one node is made of."""

    address: str
    master_address: str
    resources: NodeResources
    local_dirs: tuple[PurePosixPath, ...]
    secret: str
    worker_memory_mib: int  # that its worker offers
    executor_memory_mib: int  # of the smallest worker: an executor is as large everywhere
    executor_gpus: int


@dataclass(frozen=True, kw_only=True)
class Health:
    """What the master says of the cluster."""

    status: str  # "ALIVE", "STANDBY", or "DOWN" if it does not answer
    addresses: tuple[str, ...]  # of the workers that are alive
    endpoints: tuple[str, ...]  # address:port where they listen to the master
    cores: int
    memory_mib: int
    gpus: int
    applications: tuple[str, ...]  # names of those running
    busy: tuple[str, ...] = ()  # addresses of workers that applications have cores of
    least_cores: int = 0  # of the smallest worker

    @property
    def workers(self) -> int:
        """How many are alive."""
        return len(self.addresses)


def resources(host: Host) -> NodeResources:
    """What the node has. Raises SetupError if its account cannot be read."""
    script = host.root / bootstrap.ON_NODE / "machine-facts.sh"
    text = host.run(f"bash {quote(str(script))}", timeout_seconds=60).stdout
    facts = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    try:
        return NodeResources(
            user=facts["user"],
            cores=int(facts["cores"]),
            memory_mib=int(facts["memory_mib"]),
            gpus=int(facts["gpus"]),
        )
    except (KeyError, ValueError) as error:
        raise SetupError(
            f"{host.name}: its account of its cores and memory cannot be read ({error!r})."
        ) from None


def configure(host: Host, config: NodeConfig) -> None:
    """Write Spark's configuration; to do it again changes nothing."""
    values = _values(host, config)
    for name, mode in (("spark-defaults.conf", 0o600), ("spark-env.sh", 0o644)):
        text = bootstrap.render((bootstrap.AMI / f"spark/{name}.template").read_text(), values)
        write_text(host, host.root / CONF / name, text, mode=mode)
    write_text(host, host.root / SECRET, config.secret, mode=0o600)
    write_text(
        host, host.root / CONF / "log4j2.properties", (bootstrap.AMI / "spark/log4j2.properties").read_text()
    )


def start(host: Host, unit: str, config: NodeConfig, *, again: bool = False) -> None:
    """Install and start ``unit``; it starts again at each boot.

    One that runs goes on, with all that runs on it, unless it is to start ``again`` or has to serve another
    master, after the first was lost, or with other disks. Its share of the node is that of its start.
    """
    values = _values(host, config)
    text = bootstrap.render(
        (bootstrap.AMI / f"systemd/{unit}.service.template").read_text(),
        {**values, "BOUND_TO": _bound_to(unit, values)},
    )
    draft, script = host.root / CONF / f"{unit}.service", host.root / bootstrap.ON_NODE / START_UNIT
    write_text(host, draft, text)
    words = " ".join(map(quote, (str(script), str(draft), unit, *(["again"] if again else []))))
    host.run(f"bash {words}", timeout_seconds=60)


def _bound_to(unit: str, values: Mapping[str, object]) -> str:
    """What identifies that with which a daemon runs and without which it cannot go on."""
    names = [
        "ROOT",
        "ADDRESS",
        "MASTER_ADDRESS",
        *(["LOCAL_DIRS", "WORK_DIR"] if unit == WORKER_UNIT else []),
    ]
    return hashlib.sha256("\0".join(str(values[name]) for name in names).encode()).hexdigest()[:16]


def stop(host: Host, unit: str) -> None:
    """Stop ``unit`` and keep it from starting at the next boot."""
    host.run(f"sudo systemctl disable --now {unit}", timeout_seconds=60, check=False)


def secret_of(host: Host) -> str:
    """The cluster's secret, from a node that has it. Raises CommandFailed if it has none."""
    return read_text(host, host.root / SECRET)


def executor_memory(host: Host) -> int:
    """The size of the cluster's executors, in MiB, from its master; 0 if that has none yet."""
    conf = quote(str(host.root / CONF / "spark-defaults.conf"))
    lines = host.run(f"grep '^spark.executor.memory ' {conf}", timeout_seconds=60, check=False).stdout.split()
    value = lines[1].removesuffix("m") if len(lines) > 1 else ""
    return int(value) if value.isdigit() else 0


def health(host: Host, address: str) -> Health:
    """What the master says, asked on its own node, since its page is open to nobody else."""
    # a bare image has no curl, and Python would take long to start while Spark does
    page = f"/dev/tcp/{address}/{MASTER_PAGE}"
    ask = f"exec 3<>{page} && printf 'GET /json/ HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
    answer = host.run(f"timeout 10 bash -c {quote(ask)}", timeout_seconds=30, check=False)
    try:
        return _health(json.loads(answer.stdout.rpartition("\r\n\r\n")[2]))
    except (ValueError, KeyError, TypeError):
        return Health(
            status="DOWN", addresses=(), endpoints=(), cores=0, memory_mib=0, gpus=0, applications=()
        )


def wait_ready(
    host: Host,
    address: str,
    workers: Mapping[str, str],
    *,
    deadline_seconds: float,
    without_listener: Callable[[Health], set[str]] = lambda _: set(),
) -> Health:
    """Wait until the master is ALIVE, and so are ``workers`` (private address -> name of the node).

    The page answers two seconds before the master is of any use, and shows a lost worker as alive for a
    minute, at an address that another node may have by then: neither an answer nor a number proves anything.
    ``without_listener``: of those it shows, the addresses at which nothing listens. Raises DeadlineExceeded,
    with the end of the master's log, that names who is missing.
    """

    def overdue(seen: Health, missing: set[str]) -> DeadlineExceeded:
        lacking = ", ".join(f"{workers[one]} ({one})" for one in sorted(missing)) or "nobody"
        return DeadlineExceeded(
            f"Spark's master is {seen.status} after {deadline_seconds:g} s, and lacks {lacking}; the end of "
            f"its log:\n{last_lines(log(host, MASTER_UNIT))}",
            nodes=[workers[one] for one in missing] if seen.status == "ALIVE" else [host.name],
        )

    def check() -> Health | Pending:
        seen = health(host, address)
        missing = set(workers) - set(seen.addresses)
        if seen.status == "ALIVE" and not missing:
            missing = without_listener(seen)
            if not missing:
                return seen
        return Pending(lambda: overdue(seen, missing))

    return poll(check, deadline_seconds=deadline_seconds, every=POLL_SECONDS)


def log(host: Host, unit: str, lines: int = 20) -> str:
    """The end of a unit's log; empty if there is none."""
    file = host.root / f"var/log/{unit}.service.log"
    return host.run(f"sudo tail -n {lines} {quote(str(file))}", timeout_seconds=30, check=False).stdout


def _values(host: Host, config: NodeConfig) -> dict[str, object]:
    resources = config.resources
    return {
        "ROOT": str(host.root).rstrip("/"),
        "USER": resources.user,
        "ADDRESS": config.address,
        "MASTER_ADDRESS": config.master_address,
        "SECRET": config.secret,
        "CORES": resources.cores,
        "LOCAL_DIRS": ",".join(map(str, config.local_dirs)),
        "WORK_DIR": config.local_dirs[0].parent / "work",
        "WORKER_MEMORY_MIB": config.worker_memory_mib,
        "DAEMON_MEMORY_MIB": DAEMON_MEMORY_MIB,
        "EXECUTOR_MEMORY_MIB": config.executor_memory_mib,
        "DRIVER_MEMORY_MIB": max(LEAST_MEMORY_MIB * 2, resources.spark_memory_mib),
        "GPU_LINES": _gpu_lines(host, config),
    }


def _gpu_lines(host: Host, config: NodeConfig) -> str:
    """What a worker offers, and what the driver asks for, though the master's node has none."""
    lines = []
    if config.resources.gpus:
        script = host.root / bootstrap.ON_NODE / "spark/gpus.sh"
        lines += [
            f"spark.worker.resource.gpu.amount           {config.resources.gpus}",
            f"spark.worker.resource.gpu.discoveryScript  {script}",
        ]
    if config.executor_gpus:
        lines += [
            f"spark.executor.resource.gpu.amount         {config.executor_gpus}",
            "spark.task.resource.gpu.amount             1",
        ]
    return "\n".join(lines)


def _health(page: dict[str, Any]) -> Health:
    living = [worker for worker in page["workers"] if worker["state"] == "ALIVE"]
    return Health(
        status=page["status"],
        addresses=tuple(worker["host"] for worker in living),
        endpoints=tuple(f"{worker['host']}:{worker['port']}" for worker in living),
        cores=sum(worker["cores"] for worker in living),
        memory_mib=sum(worker["memory"] for worker in living),
        gpus=sum(len(w.get("resources", {}).get("gpu", {}).get("addresses", [])) for w in living),
        applications=tuple(app["name"] for app in page.get("activeapps", [])),
        busy=tuple(worker["host"] for worker in living if worker.get("coresused")),
        least_cores=min((worker["cores"] for worker in living), default=0),
    )
