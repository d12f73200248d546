"""Where a data set comes from, decided in one place.

``--data DIR`` and ``--data synthetic`` are obeyed, or are an error. ``--data auto``, the default, takes

    $SPARKNET_DATA               a folder, or an error
    else ~/.cache/sparknet       downloaded into on first use
    else drawn pictures          said plainly, never silently
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sparknet.data import cifar10, download, mnist, synthetic
from sparknet.data.dataset import Dataset
from sparknet.data.download import Progress
from sparknet.errors import DataError, UsageError

AUTO, SYNTHETIC = "auto", "synthetic"


@dataclass(frozen=True, kw_only=True, eq=False)
class Located:
    """A data set and one sentence on what it is and where it came from."""

    dataset: Dataset
    origin: str


@dataclass(frozen=True, kw_only=True)
class _Kind:
    find: Callable[[Path], Path | None]
    load: Callable[[Path], Dataset]
    fetch: Callable[[Path, Progress | None], Path]
    draw: Callable[[int], Dataset]


_KINDS = {
    "cifar10": _Kind(
        find=cifar10.find,
        load=cifar10.load,
        fetch=lambda folder, progress: download.fetch_cifar10(folder, progress=progress),
        draw=lambda seed: synthetic.draw(seed=seed),
    ),
    "mnist": _Kind(
        find=mnist.find,
        load=mnist.load,
        fetch=lambda folder, progress: download.fetch_mnist(folder, progress=progress),
        draw=lambda seed: synthetic.draw(seed=seed, channels=1, side=28),
    ),
}


def locate(kind: str, data: str = AUTO, *, seed: int = 0, progress: Progress | None = None) -> Located:
    """The data set ``kind``, "cifar10" or "mnist", from where ``data`` says, as listed above.

    ``seed`` draws the synthetic one. Raises DataError when what was named is missing or damaged; when nothing
    was named, a failed download falls back to drawn pictures and ``origin`` says why.
    """
    if kind not in _KINDS:
        raise UsageError(f"data set {kind!r} is not one of {', '.join(_KINDS)}")
    wanted = _KINDS[kind]
    if data == SYNTHETIC:
        return _drawn(wanted, seed)
    folder = os.environ.get("SPARKNET_DATA") if data == AUTO else data
    if folder:
        return _read(wanted, Path(folder).expanduser())
    try:
        return _read(wanted, _cached(kind, wanted, progress))
    except DataError as error:
        return _drawn(wanted, seed, because=str(error))


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/sparknet``, or ``~/.cache/sparknet``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparknet"


def _cached(kind: str, wanted: _Kind, progress: Progress | None) -> Path:
    folder = cache_folder() / kind
    return wanted.find(folder) or wanted.fetch(folder, progress)


def _read(wanted: _Kind, folder: Path) -> Located:
    dataset = wanted.load(folder)
    return Located(dataset=dataset, origin=f"{_counts(dataset)} from {wanted.find(folder) or folder}")


def _drawn(wanted: _Kind, seed: int, because: str = "") -> Located:
    dataset = wanted.draw(seed)
    reason = f", because there is nothing better: {because}" if because else ""
    return Located(
        dataset=dataset, origin=f"{_counts(dataset)}, drawn with seed {seed}: SYNTHETIC DATA{reason}"
    )


def _counts(dataset: Dataset) -> str:
    return f"{dataset.name}, {len(dataset.train):,} to train on and {len(dataset.test):,} to test on"
