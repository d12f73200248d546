"""Who may import whom, as a table, checked over the syntax trees; imports inside functions count too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("infra", "sparknet", "apps")

# Third-party packages that only some modules may import: everything else must do without.
ONLY_IN = {
    "boto3": ("infra.ec2",),
    "botocore": ("infra.ec2", "infra.service_models"),
    "fabric": ("infra.node.ssh", "infra.node.login"),
    "paramiko": ("infra.node.ssh", "infra.node.login"),
    "invoke": ("infra.node.ssh", "infra.node.login"),
    "moto": ("infra.local",),
    "pyspark": ("sparknet.spark", "sparknet.trainer", "sparknet.ml", "apps"),
    "pathspec": ("infra.jobs.project",),
    "rich": ("infra.cli",),
    "jinja2": ("sparknet.reporting",),
    "psutil": ("infra.local", "sparknet.usage"),
    "click": ("infra.cli", "sparknet.cli", "sparknet.exits", "apps"),
}

# Our own layers, top first. A module may import from its own row and from the rows below it, never upwards.
LAYERS = {
    "infra": (
        ("infra.cli",),
        ("infra.local",),
        ("infra.status", "infra.doctor"),
        ("infra.image", "infra.diagnosis", "infra.pages"),
        ("infra.cluster", "infra.jobs", "infra.orphans"),
        ("infra.healers", "infra.job_storage"),
        ("infra.healer_settings",),
        ("infra.healing",),
        (
            "infra.growth",
            "infra.shrinking",
            "infra.replacement",
            "infra.power",
            "infra.lifetime",
            "infra.access",
        ),
        ("infra.teardown",),
        (
            "infra.plan",
            "infra.survey",
            "infra.provision",
            "infra.attachments",
            "infra.bill",
            "infra.costs",
            "infra.budget",
            "infra.program",
            "infra.policies",
        ),
        ("infra.cloud",),
        ("infra.history",),
        ("infra.node", "infra.ec2"),
        ("infra.spec",),
        ("infra.interrupts", "infra.polling", "infra.job_names", "infra.numbers", "infra.private_key"),
        ("infra.events", "infra.errors", "infra.aws", "infra.home", "infra.loopback", "infra.service_models"),
    ),
    # the embedded cloud, as moto itself is laid out: state in models, calls that act on it, hosts below both
    "infra.local": (
        ("infra.local", "infra.local.server"),
        ("infra.local.cloud",),
        ("infra.local.daemon", "infra.local.http"),
        ("infra.local.simulation", "infra.local.limits"),
        ("infra.local.calls",),
        ("infra.local.models",),
        ("infra.local.hosts",),
        ("infra.local.control",),
        ("infra.local.home",),
    ),
    "sparknet": (
        ("apps",),
        ("sparknet.cli",),
        ("sparknet.exits",),
        ("sparknet.ml", "sparknet.experiment"),
        ("sparknet.trainer",),
        ("sparknet.spark",),
        ("sparknet.simulation",),
        ("sparknet.distributed",),
        ("sparknet.local", "sparknet.in_step", "sparknet.reporting", "sparknet.checkpoint"),
        ("sparknet.worker",),
        ("sparknet.caffe_replica", "sparknet.replica", "sparknet.torch_model"),
        ("sparknet.algorithms", "sparknet.auto_tau"),
        ("sparknet.inference", "sparknet.modules", "sparknet.objectives"),
        ("sparknet.easgd",),
        ("sparknet.training", "sparknet.rounds"),
        (
            "sparknet.outer",
            "sparknet.merge",
            "sparknet.overlap",
            "sparknet.rate_rule",
            "sparknet.rounding",
            "sparknet.gradients",
            "sparknet.flat_gradients",
        ),
        ("sparknet.db",),
        ("sparknet.sources",),
        ("sparknet.caffe", "sparknet.data"),
        ("sparknet.deltas", "sparknet.codecs"),
        ("sparknet.weights", "sparknet.storage", "sparknet.traces", "sparknet.notice", "sparknet.usage"),
        ("sparknet.clock", "sparknet.errors", "sparknet.moved"),
    ),
}

# Pairs (importer, imported) that are not said by the rows.
FORBIDDEN = (
    ("infra", "sparknet"),
    ("infra", "apps"),
    ("sparknet", "infra"),
    ("apps", "infra"),
    ("infra.node", "infra.ec2"),
    ("infra.ec2", "infra.node"),
    ("infra.local", "infra.cluster"),
    ("infra.local", "infra.ec2"),
    ("infra.local", "infra.jobs"),
    ("infra.local", "infra.plan"),
    ("infra.local", "infra.node.spark"),
    ("sparknet.distributed", "pyspark"),
    ("sparknet.distributed", "sparknet.caffe"),
    ("sparknet.training", "torch"),
    ("sparknet.training", "sparknet.caffe"),
    ("sparknet.training", "sparknet.data"),
    ("sparknet.data", "sparknet.caffe"),
    ("sparknet.outer", "sparknet.caffe"),
    ("sparknet.sources", "pyspark"),
    ("sparknet.db", "pyspark"),
)

# Packages within which no chain of imports comes back to its beginning, imports for types included.
WITHOUT_CIRCLES = ("apps", "infra", "sparknet")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@cache
def tree(path: Path) -> ast.Module:
    """What Python makes of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> tuple[tuple[int, str], ...]:
    """(line, dotted name) of every import, those for the type checker alone among them."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def row_of(name: str, rows: tuple[tuple[str, ...], ...]) -> int | None:
    """The most specific row that names the module or a package above it."""
    found = [(len(entry), i) for i, row in enumerate(rows) for entry in row if is_in(name, entry)]
    return max(found)[1] if found else None


def wrong_imports(path: Path) -> Iterator[str]:
    importer = module_name(path)
    for line, imported in imports(path):
        where = f"{path.relative_to(ROOT)}:{line}: {importer} imports {imported}"
        for library, homes in ONLY_IN.items():
            if is_in(imported, library) and not any(is_in(importer, home) for home in homes):
                yield f"{where}: only {', '.join(homes)} may"
        for above, below in FORBIDDEN:
            if is_in(importer, above) and is_in(imported, below):
                yield f"{where}: {above} knows nothing of {below}"
        for rows in LAYERS.values():
            mine, theirs = row_of(importer, rows), row_of(imported, rows)
            if mine is not None and theirs is not None and theirs < mine:
                yield f"{where}: upwards"


def test_every_import_goes_down() -> None:
    assert [wrong for path in modules() for wrong in wrong_imports(path)] == []


def test_every_module_stands_in_the_table() -> None:
    rows = tuple(row for table in LAYERS.values() for row in table)
    homeless = [module_name(path) for path in modules() if row_of(module_name(path), rows) is None]
    assert set(homeless) <= {"infra", "sparknet"}


def graph_of(package: str) -> dict[str, set[str]]:
    """What the modules within a package import of each other.

    The package's own ``__init__`` is left out: it loads what it names when that is first used.
    """
    paths = {module_name(path): path for path in modules() if is_in(module_name(path), package)}
    paths.pop(package)
    graph: dict[str, set[str]] = {}
    for importer, path in paths.items():
        names = {name for _, name in imports(path)}
        targets = {name if name in paths else name.rpartition(".")[0] for name in names}
        graph[importer] = targets & paths.keys() - {importer}
    return graph


@pytest.mark.parametrize("package", WITHOUT_CIRCLES)
def test_no_chain_of_imports_comes_back(package: str) -> None:
    try:
        list(TopologicalSorter(graph_of(package)).static_order())
    except CycleError as error:
        pytest.fail(f"imports go round: {' -> '.join(error.args[1])}")


def test_every_module_opens_with_a_docstring() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in modules()
        if not path.name.endswith("_pb2.py") and not ast.get_docstring(tree(path))
    ]
    assert silent == []


def test_the_embedded_cloud_is_imported_by_the_command_alone() -> None:
    importers = {
        module_name(path)
        for path in modules()
        for _, imported in imports(path)
        if is_in(imported, "infra.local") and not is_in(module_name(path), "infra.local")
    }
    assert all(is_in(importer, "infra.cli") for importer in importers)


# What each statement must not load. Those of a chain run one after the other in one new Python: what an
# earlier one may load is not forbidden to a later one.
CHAINS: tuple[tuple[tuple[str, set[str]], ...], ...] = (
    (
        ("import sparknet", {"pyspark", "torch", "boto3", "infra"}),
        ("import sparknet.training", {"pyspark", "torch", "boto3", "infra"}),
        ("import sparknet.data.feed", {"pyspark", "sparknet.caffe", "sparknet.spark", "infra"}),
        (
            "import sparknet.distributed.coordinator, sparknet.distributed.worker_service",
            {"pyspark", "py4j", "sparknet.caffe", "sparknet.spark", "infra"},
        ),
        ("import sparknet.replica", {"pyspark", "sparknet.caffe", "infra"}),
        ("import sparknet.caffe", {"pyspark", "boto3", "infra"}),
        ("import sparknet.spark.daemon", {"pandas", "pyspark.ml"}),
    ),
    (("import infra.cluster", {"moto", "torch", "pyspark", "click", "sparknet"}),),
    (("import infra.cli", {"boto3", "fabric", "moto", "torch", "pyspark", "sparknet"}),),
)


@pytest.mark.parametrize("chain", CHAINS, ids=["trainer", "cluster", "command"])
def test_importing_one_part_leaves_the_others_alone(chain: tuple[tuple[str, set[str]], ...]) -> None:
    code = "import sys\n" + "".join(f"{statement}\nprint(*sorted(sys.modules))\n" for statement, _ in chain)
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    for (statement, forbidden), loaded in zip(chain, ran.stdout.splitlines(), strict=True):
        wrong = [name for name in loaded.split() for package in forbidden if is_in(name, package)]
        assert wrong == [], f"{statement} loads them"
