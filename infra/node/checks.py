"""Checks: a cluster is ready only when its nodes can compute, can write, reach and agree with each other.

A worker with another torch, or whose GPU is not seen, would not fail: it would be slow, or wrong.

    inspect   one node reports what it is and can do (ami/checks.py, while Spark starts)
    reach     one node tries the ports of the others (once Spark listens)
    problems  what is wrong, from the reports of all of them: pure
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from shlex import quote
from typing import Any

from infra.errors import ChecksFailed, SetupError
from infra.node.bootstrap import ON_NODE
from infra.node.host import Host

VENV = PurePosixPath("opt/sparknet/venv")
OF_ROOT_DISK = PurePosixPath("var/lib/sparknet")  # where what spills goes on a node without other disks
NAMED = ("torch", "pyspark", "numpy")  # of the packages that differ, shown first
MOST_NAMED = 4
MOST_SKEW_SECONDS = 1.0
TIGHT_SECONDS = 0.4  # a round trip that leaves less than the skew in doubt
CLOCK_ATTEMPTS = 3
INSPECT_SECONDS = 180.0  # torch takes long to import when every node of one machine does it at once
REACH_SECONDS = 60.0
DISKS_SECONDS = 30.0
REFUSED = os.strerror(errno.ECONNREFUSED)
SPARK_ENVIRONMENT = PurePosixPath("opt/sparknet/conf/spark-env.sh")

#: CUDA's major version -> the oldest driver that runs what was built for it
#: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
OLDEST_DRIVERS = {11: (450, 80), 12: (525, 60), 13: (580, 65)}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU that torch sees; ``error`` is why it did not multiply two matrices, empty if it did."""

    name: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder for what spills: the mount point above it, and why nothing can be written there."""

    path: str
    mount_point: str
    error: str
    volume: str = ""  # id of the EBS volume; a node that was set up by an older version does not tell
    filled_by: str = ""  # of one that is full, in words


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one node reported, and what it was expected to have."""

    node: str
    python: str
    trainer: str  # twelve digits that identify its files
    packages: Mapping[str, str]  # all of the environment, name -> version
    cuda: str  # that torch was built for; empty for a torch of the CPU
    driver: str  # of NVIDIA; asked only where GPUs are expected
    gpus: tuple[Gpu, ...]
    folders: tuple[Folder, ...]
    mounted: tuple[str, ...]  # mount points that the folders have to be on, one each; empty for the root disk
    expected_gpus: int
    ahead: tuple[float, float]  # its clock minus this machine's, in seconds, is between these

    @property
    def environment(self) -> str:
        """What identifies the Python and all packages: twelve digits."""
        lines = [f"python=={self.python}", *(f"{name}=={v}" for name, v in sorted(self.packages.items()))]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is wrong with one node."""

    node: str
    check: str  # "python", "trainer", "packages", "driver", "gpu", "disk", "clock" or "port"
    said: str

    def __str__(self) -> str:
        return f"{self.node:<12} {self.check:<9} {self.said}"


def inspect(host: Host, node: str, folders: Sequence[PurePosixPath], *, gpus: int) -> Facts:
    """The node's report. Raises CommandFailed if it cannot make one, SetupError if it is unreadable."""
    ahead = clock(host)
    answer = _ask(host, "facts", [str(one) for one in folders], gpus=gpus, seconds=INSPECT_SECONDS)
    try:
        return Facts(
            node=node,
            python=answer["python"],
            trainer=answer["trainer"],
            packages=answer["packages"],
            cuda=answer["cuda"],
            driver=answer["driver"],
            gpus=tuple(Gpu(**one) for one in answer["gpus"]),
            folders=tuple(Folder(**one) for one in answer["folders"]),
            mounted=tuple(_mount_point(host, one) for one in folders),
            expected_gpus=gpus,
            ahead=ahead,
        )
    except (KeyError, TypeError) as error:
        raise SetupError(f"{node}: its account of itself cannot be read ({error!r}).") from None


def clock(host: Host) -> tuple[float, float]:
    """How far the node's clock is from this machine's, as bounds: what the way there and back leaves open."""
    tightest = (float("-inf"), float("inf"))
    for _ in range(CLOCK_ATTEMPTS):
        asked = time.time()
        said = host.run("date +%s.%N", timeout_seconds=30).stdout
        answered = time.time()
        try:
            there = float(said)
        except ValueError:
            raise SetupError(f"{host.name}: its clock cannot be read ({said.strip()!r}).") from None
        tightest = (max(tightest[0], there - answered), min(tightest[1], there - asked))
        if tightest[1] - tightest[0] < TIGHT_SECONDS:
            break
    return tightest


def reach(host: Host, endpoints: Sequence[str]) -> dict[str, str]:
    """Address:port -> why the node cannot connect to it, empty where it can."""
    answer: dict[str, str] = _ask(host, "reach", endpoints, seconds=REACH_SECONDS) if endpoints else {}
    return answer


def refused(answer: Mapping[str, str]) -> set[str]:
    """The addresses at which nothing listens, at none of the ports that were tried."""
    listening = {endpoint.rpartition(":")[0] for endpoint, error in answer.items() if error != REFUSED}
    return {endpoint.rpartition(":")[0] for endpoint in answer} - listening


def port_problems(
    answers: Mapping[str, Mapping[str, str]], names: Mapping[str, str], *, master: str
) -> tuple[Problem, ...]:
    """Which nodes are to blame for connections that were not made.

    ``answers``: of ``reach`` by the name of the node that asked. ``names``: of the node at each address. Of
    several ports at one address one is enough: Spark shows a worker that was started again with its old port
    as well, for a minute.

    Who refuses is there, and listens to nobody: that is its own problem. So is silence towards all who ask.
    Silence between two nodes alone is put down to the one that asks, but for the master, which all others
    reach.
    """
    failed = {asker: _unreached(answer) for asker, answer in answers.items()}
    found: dict[tuple[str, str], Problem] = {}
    for asker, errors in failed.items():
        for address, (endpoint, error) in errors.items():
            target = names.get(address, address)
            others = [one for one in failed if one != target and _is_asked(answers[one], address)]
            is_silent = len(others) > 1 and all(address in failed[one] for one in others)
            if error == REFUSED or (is_silent and target != master) or asker == master:
                said = (
                    f"nobody can connect to it at {endpoint}: {error}"
                    if is_silent
                    else (f"{asker} cannot connect to it at {endpoint}: {error}")
                )
                found.setdefault((target, address), Problem(node=target, check="port", said=said))
            else:
                said = f"cannot connect to {endpoint}: {error}"
                found.setdefault((asker, address), Problem(node=asker, check="port", said=said))
    return tuple(found.values())


def _unreached(answer: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Address -> the last of its ports that was tried, and the error, where none could be connected to."""
    reached = {endpoint.rpartition(":")[0] for endpoint, error in answer.items() if not error}
    tried = {endpoint.rpartition(":")[0]: (endpoint, error) for endpoint, error in answer.items()}
    return {address: last for address, last in tried.items() if address not in reached}


def _is_asked(answer: Mapping[str, str], address: str) -> bool:
    return any(endpoint.rpartition(":")[0] == address for endpoint in answer)


def disks(host: Host, node: str) -> tuple[Problem, ...]:
    """What is wrong with the folders that Spark spills to, on a node that has been set up before."""
    conf = host.root / SPARK_ENVIRONMENT
    answer = _ask(host, "disks", [str(conf)], seconds=DISKS_SECONDS)
    found = [Folder(**one) for one in answer["folders"]]
    mounted = [_mount_point(host, PurePosixPath(one.path)) for one in found]
    return tuple(
        Problem(node=node, check=check, said=said) for check, said in _folder_problems(found, mounted)
    )


def problems(reports: Sequence[Facts]) -> tuple[Problem, ...]:
    """What is wrong with the nodes, the master's facts first. The clocks are compared with the master's."""
    usual = _usual(reports)
    return tuple(
        Problem(node=one.node, check=check, said=said)
        for one in reports
        for check, said in (
            *_environment_problems(one, usual),
            *_gpu_problems(one),
            *_folder_problems(one.folders, one.mounted),
            *_clock_problems(one, reports[0]),
        )
    )


def require_none(found: Sequence[Problem], nodes: int) -> None:
    """Raises ChecksFailed with the table of ``found``, unless it is empty."""
    if found:
        failed = sorted({one.node for one in found})
        raise ChecksFailed(
            f"{len(failed)} of {nodes} nodes are not fit to train together:\n"
            + "\n".join(f"    {one}" for one in found),
            nodes=failed,
        )


def _ask(host: Host, question: str, words: Sequence[str], *, gpus: int = 0, seconds: float) -> dict[str, Any]:
    python, program = host.root / VENV / "bin/python", host.root / ON_NODE / "checks.py"
    command = " ".join(map(quote, (str(python), "-I", str(program), question, *words)))
    said = host.run(command, env={"EXPECTED_GPUS": str(gpus)}, timeout_seconds=seconds).stdout
    try:
        answer: dict[str, Any] = json.loads(said.strip().splitlines()[-1])  # torch may warn before
        return answer
    except (ValueError, IndexError):
        raise SetupError(f"{host.name}: its account of itself cannot be read:\n{said[:2000]}") from None


def _mount_point(host: Host, folder: PurePosixPath) -> str:
    """What disks.py mounted for the folder, which is right below it."""
    return "" if folder.is_relative_to(host.root / OF_ROOT_DISK) else str(folder.parent)


def _usual(reports: Sequence[Facts]) -> Facts:
    """A node with the environment that most have; the master's, where no other is more usual."""
    count = Counter(one.environment for one in reports)
    return max(reports, key=lambda one: count[one.environment])  # of equals the first


def _environment_problems(one: Facts, usual: Facts) -> list[tuple[str, str]]:
    found = []
    if one.python != usual.python:
        found.append(("python", f"{one.python}, where {usual.node} has {usual.python}"))
    if one.trainer != usual.trainer:
        theirs_is = f"where {usual.node} has {usual.trainer or 'none'}"
        found.append(("trainer", f"{one.trainer or 'none'}, {theirs_is}; launch again to install one on all"))
    mine, theirs = one.packages, usual.packages
    names = {name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name)}
    if names:
        ordered = sorted(names, key=lambda name: (name not in NAMED, name))
        differing = ", ".join(
            f"{name} {mine.get(name, 'missing')} ({theirs.get(name, 'missing')})"
            for name in ordered[:MOST_NAMED]
        )
        more = f" and {len(ordered) - MOST_NAMED} more" if len(ordered) > MOST_NAMED else ""
        found.append(
            ("packages", f"{differing}{more}, with {usual.node}'s in brackets; use one image (--ami)")
        )
    return found


def _gpu_problems(one: Facts) -> list[tuple[str, str]]:
    if not one.expected_gpus:
        return []
    found = []
    if not one.cuda:
        found.append(("gpu", f"torch {one.packages.get('torch', '')} was built without CUDA"))
    elif not one.driver:
        found.append(("driver", "there is no NVIDIA driver; use a Deep Learning image, or --without-gpu"))
    elif _numbers(one.driver) < (oldest := _oldest_driver(one.cuda)):
        found.append(
            (
                "driver",
                f"{one.driver} is too old for a torch of CUDA {one.cuda}, which needs "
                f"{'.'.join(map(str, oldest))}; use a newer image",
            )
        )
    found += [("gpu", f"{gpu.name or 'torch'}: {gpu.error}") for gpu in one.gpus if gpu.error]
    seen = sum(bool(gpu.name) for gpu in one.gpus)
    if seen < one.expected_gpus:
        found.append(("gpu", f"torch sees {seen} of {one.expected_gpus}; --without-gpu goes on without"))
    return found


def _folder_problems(folders: Sequence[Folder], mounted: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for folder, wanted in zip(folders, mounted, strict=True):
        if wanted and folder.mount_point != wanted:
            found.append(("disk", f"{wanted} is not mounted: what spills would fill {folder.mount_point}"))
        elif folder.error == os.strerror(errno.ENOSPC):
            place = f"{folder.mount_point} ({folder.volume})" if folder.volume else folder.mount_point
            filled_by = f" ({folder.filled_by})" if folder.filled_by else ""
            said = f"{place} is full{filled_by}: remove files there, or launch with larger disks"
            found.append(("disk", said))
        elif folder.error:
            found.append(
                ("disk", f"{folder.mount_point} is dead: {folder.path} cannot be written to ({folder.error})")
            )
    return found


def _clock_problems(one: Facts, master: Facts) -> list[tuple[str, str]]:
    """Two clocks certainly differ by the distance of their intervals."""
    skew = max(one.ahead[0] - master.ahead[1], master.ahead[0] - one.ahead[1])
    if skew <= MOST_SKEW_SECONDS:
        return []
    way = "ahead of" if one.ahead[0] > master.ahead[1] else "behind"
    said = f"at least {skew:.1f} s {way} {master.node}'s; is a time service running in the image?"
    return [("clock", said)]


def _oldest_driver(cuda: str) -> tuple[int, ...]:
    major = (_numbers(cuda) or (0,))[0]
    known = [number for number in OLDEST_DRIVERS if number <= major]
    return OLDEST_DRIVERS[max(known)] if known else (0,)


def _numbers(version: str) -> tuple[int, ...]:
    """ "570.86.10" as numbers, to be compared."""
    return tuple(int(word) for word in version.split(".")[:3] if word.isdigit())
