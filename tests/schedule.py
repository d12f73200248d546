"""Which test files a process of pytest-xdist takes, and when."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

SPARK = "the Spark of tests/sparknet/spark"

ONE_SPARK = frozenset(
    f"tests/sparknet/spark/test_{name}.py" for name in ("features", "leaks", "rebalancing", "workers")
)
"""The files that share a Spark of three executors, which takes a while to start."""

LONGEST = (
    SPARK,
    "tests/apps/test_runs.py",
    "tests/test_readme.py",
    "tests/sparknet/spark/test_chaos.py",
    "tests/sparknet/spark/test_growth.py",
    "tests/infra/local/hosts/namespaces/test_cluster.py",
    "tests/infra/test_end_to_end.py",
    "tests/infra/test_never_an_orphan.py",
    "tests/infra/test_signals.py",
    "tests/infra/local/test_aws_cli.py",
    "tests/infra/test_image_end_to_end.py",
    "tests/sparknet/spark/test_endings.py",
    "tests/sparknet/spark/test_session.py",
    "tests/infra/local/hosts/namespaces/test_leftovers.py",
    "tests/infra/local/hosts/namespaces/test_boot_session.py",
    "tests/infra/local/hosts/namespaces/test_network.py",
    "tests/sparknet/distributed/averaging/test_ring.py",
    "tests/infra/local/test_readme.py",
    "tests/sparknet/caffe/test_published_weights.py",
    "tests/infra/test_resize.py",
)
"""What takes more than about ten seconds, the longest first. All the rest may come in any order."""


class LongestFirst(LoadFileScheduling):
    """Gives each process that has nothing more to do the longest unit that is left."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(super()._split_scope(nodeid))

    def _assign_work_unit(self, node: WorkerController) -> None:
        self.workqueue.move_to_end(min(self.workqueue, key=place_of), last=False)
        super()._assign_work_unit(node)


def unit_of(file: str) -> str:
    """What is run in one process with this file."""
    return SPARK if file in ONE_SPARK else file


def place_of(unit: str) -> int:
    """Units of the same place come as they stood, those with the most tests first."""
    return LONGEST.index(unit) if unit in LONGEST else len(LONGEST)
