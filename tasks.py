"""The front door for developers: `./run TASK`, each a line or a few."""

from __future__ import annotations

from invoke import Context, task

CLUSTER = "--cloud local --name demo"


@task(
    help={
        "slaves": "workers to launch",
        "rounds": "rounds of averaging to train",
        "data": "folder of CIFAR-10, 'synthetic', or 'auto': SPARKNET_DATA, a download, or else synthetic",
    }
)
def demo(c: Context, slaves: int = 2, rounds: int = 60, data: str = "auto") -> None:
    """Launch a cluster on the embedded cloud, train CIFAR-10 on it, take everything down."""
    try:
        c.run(f"sparknet-ec2 launch -s {slaves} {CLUSTER}")
        c.run(
            f"sparknet-ec2 submit CifarApp {CLUSTER} --output output/demo -- --data {data} --rounds {rounds}"
        )
    finally:
        c.run(f"sparknet-ec2 destroy {CLUSTER} --yes")


@task(help={"args": "arguments for pytest, for example '-m \"not slow\" tests/infra'"})
def test(c: Context, args: str = "") -> None:
    """Run all tests but those marked long; `pytest` alone runs what needs neither Spark nor root nor long."""
    c.run(f"python -m pytest --all {args}")


@task
def lint(c: Context) -> None:
    """Check the style of the Python and shell code."""
    c.run("ruff check . && ruff format --check . && shellcheck run .ci/run $(git ls-files 'ami/*.sh')")


@task(help={"args": "files to check in place of all packages"})
def types(c: Context, args: str = "") -> None:
    """Check the types, strictly."""
    c.run(f"mypy {args}")


@task(help={"name": "one of tests/bench, without .py", "args": "its own arguments"})
def bench(c: Context, name: str, args: str = "") -> None:
    """Run one of the benchmarks of tests/bench."""
    c.run(f"python -m tests.bench.{name} {args}")


@task
def docs(c: Context) -> None:
    """Build the documentation as a site in build/site; a link that leads nowhere ends it."""
    quiet = {"NO_MKDOCS_2_WARNING": "1"}  # mkdocs-material's own advertisement
    c.run("mkdocs build --quiet --strict --config-file .mkdocs.yml", env=quiet)


@task
def schema(c: Context) -> None:
    """Compile Caffe's file format, sparknet/caffe/schema/caffe.proto, to Python."""
    c.run("python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. sparknet/caffe/schema/caffe.proto")


@task
def lock(c: Context) -> None:
    """Pin the packages that are installed now in requirements.lock, and those of nodes with their hashes."""
    edits = '/^pip==/d; s/+cpu$//; s/^plyvel.ci==.*/&; python_version < "3.13"/'  # no wheels beyond
    c.run("echo '# Every package of the environment, pinned. Made by: ./run lock' > requirements.lock")
    c.run(f"pip freeze --all --exclude-editable | sed '{edits}' >> requirements.lock")
    c.run("python ami/lock.py")
