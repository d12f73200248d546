"""Gate: a cluster is let through only when its nodes can compute, can write, and agree with each other.

A worker with another torch, or whose GPU is not seen, would not fail: it would be slow, or wrong.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from shlex import quote

from infra.bootstrap import ON_NODE
from infra.errors import SetupError
from infra.remote import Host

AGREED = ("python", "torch", "pyspark", "numpy")
MOST_SKEW_SECONDS = 1.0
GATE_SECONDS = 180.0


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What one node said at the gate, and how far its clock is from this machine's (seconds)."""

    node: str
    versions: Mapping[str, str]
    ahead: tuple[float, float]  # its clock minus ours is between these


def show(host: Host, node: str, folders: Sequence[PurePosixPath], *, gpus: int) -> Pass:
    """Let the node prove itself. Raises CommandFailed with what it could not do."""
    words = " ".join(quote(str(word)) for word in (host.root / ON_NODE / "gate.sh", *folders))
    asked = time.time()
    told = host.run(f"bash {words}", env={"EXPECTED_GPUS": str(gpus)}, timeout_seconds=GATE_SECONDS).stdout
    answered = time.time()
    facts = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    clock = float(facts.pop("clock", asked))
    return Pass(node=node, versions=facts, ahead=(clock - answered, clock - asked))


def check(passes: Sequence[Pass]) -> None:
    """Raises SetupError with a table of the nodes if they differ in what they run, or in the time."""
    differing = [key for key in AGREED if len({one.versions.get(key) for one in passes}) > 1]
    if differing:
        raise SetupError(
            f"The nodes do not run the same {', '.join(differing)}; use one image for all of them (--ami).\n"
            + _table(passes, differing)
        )
    # two clocks certainly differ by the distance of their intervals
    latest, earliest = max(one.ahead[0] for one in passes), min(one.ahead[1] for one in passes)
    if latest - earliest > MOST_SKEW_SECONDS:
        fast = max(passes, key=lambda one: one.ahead[0])
        slow = min(passes, key=lambda one: one.ahead[1])
        raise SetupError(
            f"The clocks of {fast.node} and {slow.node} differ by at least {latest - earliest:.1f} s; "
            "is a time service running in the image?"
        )


def _table(passes: Sequence[Pass], keys: Sequence[str]) -> str:
    """One line a node, those that differ from most marked."""
    usual = {key: Counter(one.versions.get(key) for one in passes).most_common(1)[0][0] for key in keys}
    lines = []
    for one in passes:
        said = "  ".join(f"{key} {one.versions.get(key, 'missing')}" for key in keys)
        mark = "  <--" if any(one.versions.get(key) != usual[key] for key in keys) else ""
        lines.append(f"    {one.node:<12} {said}{mark}")
    return "\n".join(lines)
