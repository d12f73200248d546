"""Program: what a job runs: one of the project's own apps, or a Python file of the user's."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from infra import job_names
from infra.errors import UsageError
from infra.node import bundle


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run: a Python file of this machine, by the name a user would call it."""

    name: str
    file: Path
    is_app: bool  # one of the project's own, which takes --output

    @property
    def script(self) -> str:
        """What its file is called on the master: Spark takes the name for a URI."""
        name = self.file.stem
        return self.file.name if name == job_names.safe(name) else f"{job_names.safe(name)}.py"


def find(word: str) -> Program:
    """The app called ``word``, or the user's own Python file. Raises UsageError, naming the nearest app."""
    apps = {file.stem: file for file in sorted(bundle.package("apps").glob("[A-Z]*.py"))}
    name = word.removesuffix(".py")
    if name in apps:
        return Program(name=name, file=apps[name], is_app=True)
    file = Path(word)
    if file.suffix == ".py" and file.is_file():
        return Program(name=file.stem, file=file, is_app=False)
    if file.suffix == ".py":
        raise UsageError(f"There is no file {word}.")
    near = difflib.get_close_matches(name.lower(), {one.lower(): one for one in apps}, n=1, cutoff=0.4)
    guess = [one for one in apps if near and one.lower() == near[0]]
    hint = f"did you mean {guess[0]}?" if guess else f"there are: {', '.join(apps) or 'none'}"
    raise UsageError(
        f"There is no app {word}; {hint} A program of your own is given as a path to its .py file."
    )
