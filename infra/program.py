"""Program: what a job runs: an app of the project, or a Python file, a folder or a module of the user's."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from infra.errors import UsageError
from infra.node import bundle

FILE, MODULE = "file", "module"
MAIN_FILES = ("__main__.py", "main.py")  # what a folder runs, the first that it has
DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run, by the name a user would call it, and the folder that it needs around it.

    ``start`` is the path of a file below ``folder``, or, of a ``kind`` "module", a module's dotted name.
    """

    name: str
    folder: Path
    start: str
    kind: str = FILE
    is_app: bool = False  # one of the project's own, which takes --output
    is_alone: bool = False  # of the folder nothing but the file itself


def find(word: str, folder: Path | None = None) -> Program:
    """The app called ``word``, or the user's own Python file, folder or module.

    ``folder``: what travels with it. By default that of a file, and the current one for a module. Raises
    UsageError, naming the nearest app.
    """
    apps = _apps()
    if word.removesuffix(".py") in apps and folder is None:
        return apps[word.removesuffix(".py")]
    path = Path(word)
    if path.is_dir():
        return _of_file(_main_file(path), folder or path, name=path.resolve().name)
    if path.is_file():
        if path.suffix != ".py":
            raise UsageError(f"{word} is no Python program: its name does not end in .py.")
        return _of_file(path, folder)
    if path.suffix == ".py":
        raise UsageError(f"There is no file {word}.")
    found = _of_module(word, folder or Path())
    if found is not None:
        return found
    near = difflib.get_close_matches(word.lower(), {one.lower(): one for one in apps}, n=1, cutoff=0.4)
    guess = [one for one in apps if near and one.lower() == near[0]]
    hint = f"did you mean {guess[0]}?" if guess else f"there are: {', '.join(apps) or 'none'}"
    raise UsageError(
        f"There is no app {word}; {hint} A program of your own is given as a path to its .py file or "
        f"folder, or as the name of a module."
    )


def _apps() -> dict[str, Program]:
    folder = bundle.package("apps")
    return {
        file.stem: Program(name=file.stem, folder=folder, start=file.name, is_app=True)
        for file in sorted(folder.glob("[A-Z]*.py"))
    }


def _of_file(file: Path, folder: Path | None, name: str = "") -> Program:
    file = file.absolute()
    around = (folder or file.parent).absolute()
    # resolved for the comparison alone: the file may be a link to one that lies elsewhere
    inside = Path(*file.parent.resolve().parts, file.name)
    if not inside.is_relative_to(around.resolve()):
        raise UsageError(f"{file} is not in the folder {around} that is to travel.")
    return Program(
        name=name or file.stem,
        folder=around,
        start=str(inside.relative_to(around.resolve())),
        is_alone=folder is None and around.resolve() in (Path.home().resolve(), Path("/"), Path("/tmp")),
    )


def _main_file(folder: Path) -> Path:
    """What a folder runs. Raises UsageError if that is not clear."""
    for name in MAIN_FILES:
        if (folder / name).is_file():
            return folder / name
    programs = sorted(folder.glob("*.py"))
    if len(programs) == 1:
        return programs[0]
    there = f"it has {', '.join(one.name for one in programs[:5])}" if programs else "it has no .py file"
    raise UsageError(
        f"What {folder} is to run is not clear ({there}): it needs a __main__.py or a main.py; or name the "
        f"file: submit {folder / 'PROGRAM.py'}"
    )


def _of_module(word: str, folder: Path) -> Program | None:
    """The module called ``word`` below ``folder``, as python -m finds it; None if there is none."""
    path = folder.absolute().joinpath(*word.split("."))
    is_there = path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    if not DOTTED.fullmatch(word) or not is_there:
        return None
    return Program(name=word, folder=folder.absolute(), start=word, kind=MODULE)
