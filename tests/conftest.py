"""How the tests are run: which of them, in which order, and with which Java.

``pytest`` alone runs what needs neither Spark nor namespaces nor root nor a GPU nor long; ``--all`` runs all
but what is marked ``long``. Whoever names a file, a marker or a word (``-k``) gets all that is meant by it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from xdist.remote import Producer
from xdist.workermanage import WorkerController

from tests import java
from tests.process_state import put_back
from tests.schedule import ALL, QUICK, ByUnit, longest_first, mark

ENDINGS = pytest.StashKey[list[Callable[[], None]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="every test that is not marked long")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ENDINGS] = []
    if is_worker(config):
        config.option.markexpr = config.workerinput["markexpr"]
        return
    java.install()
    names_nothing = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if names_nothing and not (config.option.markexpr or config.option.keyword):
        config.option.markexpr = ALL if config.option.all else QUICK


def is_worker(config: pytest.Config) -> bool:
    """Whether this is a process of pytest-xdist's."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Have the processes choose as this one does: they are sent the command line, not what became of it."""
    node.workerinput["markexpr"] = node.config.option.markexpr


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mark(items)
    if is_worker(config):
        items[:] = longest_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByUnit | None:
    return ByUnit(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let Java start for tests marked ``spark`` only; for the first of them begin to make its archive."""
    if item.get_closest_marker("spark") is None:
        os.environ[java.FORBIDDEN] = item.nodeid
    elif not item.config.stash[ENDINGS]:
        item.config.stash[ENDINGS].append(java.start_archive())
    try:
        return (yield)
    finally:
        os.environ.pop(java.FORBIDDEN, None)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call() -> Iterator[None]:
    """What fixtures have set up stays until they take it down; what the test itself does is put back."""
    with put_back():
        return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    for end in config.stash.get(ENDINGS, []):
        end()
