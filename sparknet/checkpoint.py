"""Checkpoints: all that a run needs to go on from a round, on any storage fsspec knows (a folder, s3://,
...).

    <folder>/round-00000040/weights.f32           float32, little endian
                            outer-momentum.f32    one file for each vector of the outer optimiser
                            worker-3.f32          the history of worker 3's solver
                            manifest.json         size and SHA-256 of each, places in the shards; written last

A checkpoint appears whole or not at all (``storage.py``), and counts only if every file is what its manifest
says: one that was torn or has rotted is passed over for the one before it. The last ``keep`` are kept.

    checkpoints = Checkpoints("s3://bucket/run-7", every=10)
    for done in train(workers, settings, outer, **resumed(checkpoints.latest(), workers, outer)):
        checkpoints.after(done, workers, outer)
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparknet.errors import CheckpointError, UsageError
from sparknet.outer import Outer
from sparknet.storage import storage
from sparknet.training import Round, Workers, WorkerState
from sparknet.weights import Vector

log = logging.getLogger(__name__)

_FORMAT = 1
_MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """``weights`` float32 (P,) after ``round`` rounds, the last of them at the rate ``lr``."""

    round: int
    lr: float
    weights: Vector
    outer: Mapping[str, Vector] = field(default_factory=dict)
    workers: Mapping[int, WorkerState] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one run in ``folder``, a path or an fsspec URL; ``options`` are for its file system.

    ``every`` says after how many rounds ``after`` saves one.
    """

    def __init__(self, folder: str, *, every: int = 1, keep: int = 2, **options: Any) -> None:
        for name, value in (("every", every), ("keep", keep)):
            if value < 1:
                raise UsageError(f"{name} is {value} checkpoints: at least 1 is needed")
        self.folder, self.every, self.keep = folder, every, keep
        self._storage = storage(folder, last=_MANIFEST, **options)

    def after(self, done: Round, workers: Workers, outer: Outer) -> bool:
        """Save the state of affairs after a round if one is due, as it is after the last; whether it was."""
        if done.number % self.every and done.number != done.rounds:
            return False
        self.save(
            Checkpoint(
                round=done.number,
                lr=done.lr,
                weights=done.weights,
                outer=outer.state,
                workers=workers.states(),
            )
        )
        return True

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then remove those that are too many. Raises CheckpointError if it cannot."""
        try:
            self._storage.publish(_name(checkpoint.round), _contents(checkpoint))
            self._remove_old(checkpoint.round)
        except OSError as error:
            raise CheckpointError(
                f"{self.folder}: round {checkpoint.round} could not be saved: {error}"
            ) from error

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None if there has never been one.

        Raises CheckpointError if there are some and none can be used, or if the folder cannot be read.
        """
        broken = []
        for name in self._names():
            try:
                return self._load(name)
            except (CheckpointError, OSError, KeyError, TypeError, ValueError) as error:
                broken.append(f"{name}: {error}")
                log.warning("passed over a checkpoint in %s: %s", self.folder, broken[-1])
        if broken:
            raise CheckpointError(f"no checkpoint in {self.folder} can be used: {'; '.join(broken)}")
        return None

    def _names(self) -> list[str]:
        """All that were completed, the newest first."""
        try:
            return self._storage.names("round-*")[::-1]
        except OSError as error:
            raise CheckpointError(f"{self.folder} cannot be read: {error}") from error

    def _load(self, name: str) -> Checkpoint:
        manifest = _opened(self._storage.read(name, _MANIFEST))
        vectors = {file: self._vector(name, file, facts) for file, facts in manifest["files"].items()}
        return Checkpoint(
            round=int(manifest["round"]),
            lr=float(manifest["lr"]),
            weights=vectors["weights.f32"],
            outer={outer: vectors[file] for outer, file in manifest["outer"].items()},
            workers={
                int(number): WorkerState(
                    iteration=int(state["iteration"]),
                    position=int(state["position"]),
                    history=vectors.get(_worker_file(int(number))),
                )
                for number, state in manifest["workers"].items()
            },
        )

    def _vector(self, name: str, file: str, facts: Mapping[str, Any]) -> Vector:
        data = self._storage.read(name, file)
        if facts != _facts(data):
            raise CheckpointError(f"{file} is not what was written ({len(data):,} bytes)")
        return np.frombuffer(data, "<f4").astype(np.float32)

    def _remove_old(self, newest: int) -> None:
        """Keep the last ones up to ``newest``; later ones belong to a run that this one has replaced."""
        names = self._names()
        past = [name for name in names if name <= _name(newest)]
        for name in [*(set(names) - set(past)), *past[self.keep :]]:
            self._storage.remove(name)


def resumed(checkpoint: Checkpoint | None, workers: Workers, outer: Outer) -> dict[str, Any]:
    """Put workers and outer optimiser back to ``checkpoint``, if any; returns arguments for ``train``."""
    if checkpoint is None:
        return {}
    outer.resume(checkpoint.outer)
    workers.restore(checkpoint.workers)
    return {"weights": checkpoint.weights, "done": checkpoint.round, "lr": checkpoint.lr}


def _name(number: int) -> str:
    return f"round-{number:08d}"


def _contents(checkpoint: Checkpoint) -> Iterator[tuple[str, bytes]]:
    """The files, the manifest of all others last."""
    files = {}
    for name, vector in _vectors(checkpoint):
        data = np.ascontiguousarray(vector, "<f4").tobytes()
        files[name] = _facts(data)
        yield name, data
    yield _MANIFEST, _sealed(_manifest(checkpoint, files))


def _facts(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _vectors(checkpoint: Checkpoint) -> Iterator[tuple[str, Vector]]:
    yield "weights.f32", checkpoint.weights
    for name, vector in checkpoint.outer.items():
        yield _outer_file(name), vector
    for number, state in checkpoint.workers.items():
        if state.history is not None:
            yield _worker_file(number), state.history


def _manifest(checkpoint: Checkpoint, files: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "round": checkpoint.round,
        "lr": checkpoint.lr,
        "files": files,
        "outer": {name: _outer_file(name) for name in checkpoint.outer},
        "workers": {
            str(number): {"iteration": state.iteration, "position": state.position}
            for number, state in checkpoint.workers.items()
        },
    }


def _outer_file(name: str) -> str:
    return f"outer-{name}.f32"


def _worker_file(number: int) -> str:
    return f"worker-{number}.f32"


def _sealed(manifest: Mapping[str, Any]) -> bytes:
    """The manifest in one line, its digest in the next."""
    line = json.dumps(manifest, sort_keys=True)
    return f"{line}\n{hashlib.sha256(line.encode()).hexdigest()}\n".encode()


def _opened(data: bytes) -> dict[str, Any]:
    line, _, digest = data.decode(errors="replace").partition("\n")
    if hashlib.sha256(line.encode()).hexdigest() != digest.strip():
        raise CheckpointError(f"{_MANIFEST} is not what was written ({len(data):,} bytes)")
    manifest: dict[str, Any] = json.loads(line)
    if manifest["format"] != _FORMAT:
        raise CheckpointError(f"{_MANIFEST} has format {manifest['format']}, this program reads {_FORMAT}")
    return manifest
