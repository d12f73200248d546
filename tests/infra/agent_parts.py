"""What the tests of the agent have in common: its modules, and a made up node and metadata service."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from infra.node import bootstrap

AGENT = bootstrap.AMI / "agent"
NAMES = ("metadata", "node", "notices", "idleness")


@contextmanager
def agent() -> Iterator[dict[str, ModuleType]]:
    """Its modules, which are found as they are where it runs: beside each other."""
    before = {name: sys.modules.pop(name, None) for name in NAMES}
    sys.path.insert(0, str(AGENT))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(AGENT))
        for name, module in before.items():
            del sys.modules[name]
            if module:
                sys.modules[name] = module


class MadeUpMetadata:
    """Says what it is told to."""

    def __init__(self, said: Mapping[str, str] | None = None) -> None:
        self.said, self.time = dict(said or {}), 1_800_000_000.0

    def get(self, path: str) -> str | None:
        return self.said.get(path)

    def now(self) -> float:
        return self.time


class MadeUpNode:
    """Remembers what was run on it; ``answers`` are what commands say, by a word in them."""

    def __init__(self, root: Path, role: str = "worker", **answers: str) -> None:
        self.root, self.role, self.ami = root, role, bootstrap.AMI
        self.answers, self.ran = answers, list[tuple[str, ...]]()
        self.log, self.ended = list[str](), list[str]()
        self.settings: dict[str, str] = {}

    def setting(self, name: str) -> str:
        return self.settings.get(name, "")

    def run(self, *words: str) -> str:
        self.ran.append(words)
        return next((said for word, said in self.answers.items() if any(word in one for one in words)), "")

    def say(self, text: str) -> None:
        self.log.append(text)

    def end(self, why: str) -> None:
        self.ended.append(why)
