"""Checkpoints: all that a run needs to go on from a round, on any storage fsspec knows (a folder, s3://,
...).

    <folder>/round-00000040/weights.f32           float32, little endian
                            outer-momentum.f32    one file for each vector of the outer optimiser
                            worker-3.f32          the history of worker 3's solver
                            manifest.json         size and SHA-256 of each, places in the shards; written last

A checkpoint counts only if its manifest is whole and every file is what the manifest says: one that was torn
or has rotted is passed over for the one before it. The last ``keep`` are kept.

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

import fsspec
import numpy as np

from sparknet.errors import CheckpointError, UsageError
from sparknet.outer import Outer
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
        self._files, self._root = fsspec.core.url_to_fs(folder, **options)

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
        folder = f"{self._root}/round-{checkpoint.round:08d}"
        try:
            self._remove(folder)
            self._files.makedirs(folder, exist_ok=True)
            files = {name: self._write(folder, name, vector) for name, vector in _vectors(checkpoint)}
            self._write_manifest(folder, checkpoint, files)
            self._remove_old(checkpoint.round)
        except OSError as error:
            raise CheckpointError(
                f"{self.folder}: round {checkpoint.round} could not be saved: {error}"
            ) from error

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None if there has never been one.

        Raises CheckpointError if there are some and none can be used.
        """
        broken = []
        for folder in self._folders():
            try:
                return self._load(folder)
            except (CheckpointError, OSError, KeyError, TypeError, ValueError) as error:
                broken.append(f"{folder}: {error}")
                log.warning("passed over a checkpoint: %s", broken[-1])
        if broken:
            raise CheckpointError("no checkpoint can be used: " + "; ".join(broken))
        return None

    # -- reading --------------------------------------------------------------------------------------------

    def _folders(self) -> list[str]:
        """All that may be checkpoints, newest first; a folder without a manifest was never finished."""
        self._files.invalidate_cache()
        manifests = self._files.glob(f"{self._root}/round-*/{_MANIFEST}")
        return sorted((str(path).removesuffix(f"/{_MANIFEST}") for path in manifests), reverse=True)

    def _load(self, folder: str) -> Checkpoint:
        manifest = _opened(self._files.cat_file(f"{folder}/{_MANIFEST}"))
        vectors = {name: self._read(folder, name, facts) for name, facts in manifest["files"].items()}
        return Checkpoint(
            round=int(manifest["round"]),
            lr=float(manifest["lr"]),
            weights=vectors["weights.f32"],
            outer={name: vectors[file] for name, file in manifest["outer"].items()},
            workers={
                int(number): WorkerState(
                    iteration=int(state["iteration"]),
                    position=int(state["position"]),
                    history=vectors.get(_worker_file(int(number))),
                )
                for number, state in manifest["workers"].items()
            },
        )

    def _read(self, folder: str, name: str, facts: Mapping[str, Any]) -> Vector:
        data = self._files.cat_file(f"{folder}/{name}")
        if len(data) != facts["bytes"] or hashlib.sha256(data).hexdigest() != facts["sha256"]:
            raise CheckpointError(f"{name} is not what was written ({len(data):,} bytes)")
        return np.frombuffer(data, "<f4").astype(np.float32)

    # -- writing --------------------------------------------------------------------------------------------

    def _write(self, folder: str, name: str, vector: Vector) -> dict[str, Any]:
        data = np.ascontiguousarray(vector, "<f4").tobytes()
        self._files.pipe_file(f"{folder}/{name}", data)
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def _write_manifest(self, folder: str, checkpoint: Checkpoint, files: Mapping[str, Any]) -> None:
        manifest = {
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
        self._files.pipe_file(f"{folder}/{_MANIFEST}", _sealed(manifest))

    def _remove_old(self, newest: int) -> None:
        """Keep the last ones up to ``newest``; later ones belong to a run that this one has replaced."""
        names = {folder: int(folder.rsplit("-", 1)[1]) for folder in self._folders()}
        past = [folder for folder, number in names.items() if number <= newest]
        later = [folder for folder, number in names.items() if number > newest]
        for folder in [*later, *past[self.keep :]]:
            self._remove(folder)

    def _remove(self, folder: str) -> None:
        """The manifest goes first, so that what is left of a removal is no checkpoint."""
        if self._files.exists(f"{folder}/{_MANIFEST}"):
            self._files.rm(f"{folder}/{_MANIFEST}")
        if self._files.exists(folder):
            self._files.rm(folder, recursive=True)


def resumed(checkpoint: Checkpoint | None, workers: Workers, outer: Outer) -> dict[str, Any]:
    """Put workers and outer optimiser back to ``checkpoint``, if any; returns arguments for ``train``."""
    if checkpoint is None:
        return {}
    outer.resume(checkpoint.outer)
    workers.restore(checkpoint.workers)
    return {"weights": checkpoint.weights, "done": checkpoint.round, "lr": checkpoint.lr}


def _vectors(checkpoint: Checkpoint) -> Iterator[tuple[str, Vector]]:
    yield "weights.f32", checkpoint.weights
    for name, vector in checkpoint.outer.items():
        yield _outer_file(name), vector
    for number, state in checkpoint.workers.items():
        if state.history is not None:
            yield _worker_file(number), state.history


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
