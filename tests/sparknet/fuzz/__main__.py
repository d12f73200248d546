"""Damaged files by the thousand, from seeds, for everything that reads a file: each is read, or refused.

    python -m tests.sparknet.fuzz                       # 1,000 files for every reader
    python -m tests.sparknet.fuzz --cases 20000 lmdb solver
    python -m tests.sparknet.fuzz --cases 1 --first 4711 prototxt   # one of them again

A reader works in a process of its own with 3 GiB of memory and 20 seconds a file, so that one that is ended
by a signal, or believes a size, or never comes back, is found as well. Whatever is neither read nor refused
with a SparkNetError is named with its seed, and its file kept.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.sparknet.fuzz.runner import READERS, run

ROOT = Path(__file__).parents[3]


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("readers", nargs="*", help=f"of {', '.join(READERS)}; all if none is named")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--folder", type=Path, help="where damaged files are kept")
    parser.add_argument("--here", action="store_true", help="in this process")
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    escaped = 0
    for name in chosen.readers or list(READERS):
        if chosen.here:
            outcome = run(name, chosen.first, chosen.cases, folder / name)
            say(f"{name}: {outcome.well} read, {outcome.refused} refused")
            for escape in outcome.escaped:
                say(escape)
            escaped += len(outcome.escaped)
            continue
        command = [sys.executable, "-m", __package__ or "", "--here", "--folder", str(folder), name]
        ran = subprocess.run(
            [*command, "--cases", str(chosen.cases), "--first", str(chosen.first)], cwd=ROOT, check=False
        )
        if ran.returncode:
            escaped += 1
        if ran.returncode < 0:
            seed = (folder / f"{name}.seed").read_text()
            say(f"{name} {seed}: the process was ended by signal {-ran.returncode}")
    say(f"{escaped or 'none'} escaped; files in {folder}" if escaped else "none escaped")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
