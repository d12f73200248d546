"""Project: the folder that a program needs around it, as it travels to the master.

What git ignores stays here (the .gitignore files of the folder and of the repository around it), and so do
version control, environments, caches, results of earlier jobs, and files that may hold a secret.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import UsageError
from infra.home import home
from infra.jobs.secret_names import may_be_secret
from infra.node.host import LeftOut
from infra.program import Program

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

GIT = ".git"
LEFT_OUT = {
    GIT, ".hg", ".svn", "__pycache__", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox",
    ".ipynb_checkpoints", "node_modules", ".DS_Store",
}  # fmt: skip
ENVIRONMENT_MARK = "pyvenv.cfg"  # of a folder made by venv
MOST_FILES = 50_000
MOST_BYTES = 2 << 30
KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
NAMED = 3  # of what makes a folder too large


@dataclass(frozen=True, kw_only=True)
class Item:
    """A file: its path in the project, where it is here, its size in bytes, and its mode."""

    path: str
    file: Path
    size: int
    mode: int


@dataclass(frozen=True, kw_only=True)
class Project:
    """What travels, sorted by path, and what of the folder does not though nothing ignores it."""

    items: tuple[Item, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(item.size for item in self.items)


def collect(program: Program) -> Project:
    """The project of a program; an app of our own needs none.

    Raises UsageError for a folder that is too large to be one, and for a program that is not part of it.
    """
    if program.is_app:
        return Project()
    if program.is_alone:
        return Project(items=(_item(program.folder, program.start),))
    items, left_out = [], []
    for one in _walk(program.folder):
        if isinstance(one, Item):
            items.append(one)
        else:
            left_out.append(one)
        if len(items) > MOST_FILES:
            raise _too_large(program.folder, items)
    found = Project(items=tuple(sorted(items, key=lambda item: item.path)), left_out=tuple(left_out))
    if found.size > MOST_BYTES:
        raise _too_large(program.folder, items)
    _require_program(program, found)
    return found


def _require_program(program: Program, found: Project) -> None:
    """Raises UsageError if the program itself is ignored."""
    path = program.start.replace(".", "/") if program.kind == "module" else program.start
    wanted = {path, f"{path}.py", f"{path}/__main__.py"}
    if not wanted & {item.path for item in found.items}:
        raise UsageError(f"{program.start} of {program.folder} would not travel: a .gitignore leaves it out.")


def _walk(top: Path) -> Iterator[Item | LeftOut]:
    """All below ``top`` that travels; links are followed, but not round."""
    rules = _Rules(top)
    results = home().absolute()

    def below(folder: Path, inside: str, above: frozenset[tuple[int, int]]) -> Iterator[Item | LeftOut]:
        here = folder.stat()
        above |= {(here.st_dev, here.st_ino)}
        rules.read(folder)
        for entry in sorted(os.scandir(folder), key=lambda one: one.name):
            path, file = f"{inside}{entry.name}", folder / entry.name
            if entry.name in LEFT_OUT or file == results or rules.ignore(file, entry.is_dir()):
                continue
            kind, found = _look(file, above)
            if kind or found is None:
                yield LeftOut(path=path, kind=kind)
            elif may_be_secret(entry.name):
                yield LeftOut(path=path, kind="it may hold a secret")
            elif not stat.S_ISDIR(found.st_mode):
                yield Item(path=path, file=file, size=found.st_size, mode=found.st_mode & 0o777)
            elif not (file / ENVIRONMENT_MARK).exists():
                yield from below(file, f"{path}/", above)

    yield from below(top, "", frozenset())


def _look(file: Path, above: frozenset[tuple[int, int]]) -> tuple[str, os.stat_result | None]:
    """Why a file or folder does not travel (empty: it does), and what it is, or leads to."""
    try:
        found = file.stat()
    except OSError:
        return "a link that leads nowhere", None
    if stat.S_ISDIR(found.st_mode):
        if (found.st_dev, found.st_ino) in above:
            return "a link into itself", found
    elif not stat.S_ISREG(found.st_mode):
        return KINDS.get(stat.S_IFMT(found.st_mode), "a device"), found
    return ("" if os.access(file, os.R_OK) else "it cannot be read"), found


def _item(folder: Path, path: str) -> Item:
    found = (folder / path).stat()
    return Item(path=path, file=folder / path, size=found.st_size, mode=found.st_mode & 0o777)


class _Rules:
    """The .gitignore files that hold for a folder: the deepest that says anything about a path decides."""

    def __init__(self, top: Path) -> None:
        self._specs: dict[Path, list[GitIgnoreSpec]] = {}
        above = [top, *top.parents]
        repository = next((one for one in above if (one / GIT).exists()), None)
        if repository is not None:
            for folder in above[1 : above.index(repository) + 1]:
                self.read(folder)
            self._read(repository, repository / GIT / "info/exclude")

    def read(self, folder: Path) -> None:
        """Take the rules of a folder into account."""
        self._read(folder, folder / ".gitignore")

    def ignore(self, file: Path, is_folder: bool) -> bool:
        """Whether git would leave it out."""
        for folder in file.parents:
            for spec in self._specs.get(folder, ()):
                path = str(file.relative_to(folder)) + ("/" if is_folder else "")
                said = spec.check_file(path).include
                if said is not None:
                    return bool(said)
        return False

    def _read(self, folder: Path, file: Path) -> None:
        from pathspec import GitIgnoreSpec

        try:
            text = file.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return
        specs = self._specs.setdefault(folder, [])
        specs.append(GitIgnoreSpec.from_lines(text.splitlines()))


def _too_large(folder: Path, items: list[Item]) -> UsageError:
    sizes: dict[str, int] = {}
    for item in items:
        first = item.path.partition("/")[0]
        sizes[first] = sizes.get(first, 0) + item.size
    largest = sorted(sizes, key=lambda name: -sizes[name])[:NAMED]
    names = ", ".join(f"{name} ({sizes[name] / 1e6:,.0f} MB)" for name in largest)
    return UsageError(
        f"{folder} is too large to travel with a program: {len(items):,} files and "
        f"{sum(sizes.values()) / 1e9:.1f} GB, the largest of it {names}. Name what is not needed in a "
        f".gitignore, put the program into a folder of its own, or let it read data from S3."
    )
