"""Checkpoints: all that a run needs to go on from a round, on any storage fsspec knows (a folder, s3://,
...).

    <folder>/round-00000040/weights.f32           float32, little endian
                            outer-momentum.f32    one file for each vector of the outer optimiser
                            worker-3.f32          the history of worker 3's solver
                            manifest.json         size and SHA-256 of each, places in the shards; written last

A checkpoint appears whole or not at all (``storage.py``), and counts only if every file is what its manifest
says: one that was torn or has rotted is passed over for the one before it. The last ``keep`` are kept.

A store may be away for a while: ``after`` lets training go on, and tries again after later rounds, until that
has failed for ``patience`` seconds. No call waits for ever.

    checkpoints = Checkpoints("s3://bucket/run-7", every=10)
    for done in train(workers, settings, outer, **resumed(checkpoints.latest(), workers, outer)):
        checkpoints.after(done, workers, outer)
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparknet.errors import CheckpointError, UsageError
from sparknet.outer import Outer
from sparknet.storage import Storage, storage, within
from sparknet.training import Round, Workers, WorkerState
from sparknet.weights import Vector

log = logging.getLogger(__name__)

_FORMAT = 1
_MANIFEST = "manifest.json"

# Seconds that saving or reading a checkpoint may take, and one more for so many bytes.
_CALL_SECONDS, _SLOW_BYTES = 120.0, 1e6
# No file has more: 2**48 weights.
_MOST_BYTES = 1 << 50
# Between two tries to save, in seconds: doubled from the first to the last.
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 60.0
# Between two rounds after which workers that compute ahead wait for each other, where only time counts.
_DRAIN_ROUNDS = 10

# What a store answers, and what it means to whoever has to do something about it.
_MEANINGS = {
    "ExpiredToken": "the credentials have expired: renew them, a new try reads them again",
    "TokenRefreshRequired": "the credentials have expired: renew them, a new try reads them again",
    "RequestTimeTooSkewed": "the clock of this machine is wrong: requests are refused",
    "InvalidAccessKeyId": "the credentials are not known to the store",
    "SignatureDoesNotMatch": "the secret key is not that of the access key",
    "ACCESS_DENIED": "access is denied: may these credentials list and write there?",
    "NO_SUCH_BUCKET": "there is no such bucket",
    "SLOW_DOWN": "the store asks for fewer requests",
    "curlCode: 28": "the store does not answer",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """``weights`` float32 (P,) after ``round`` rounds, the last of them at the rate ``lr``.

    ``algorithm`` is the name of the one whose state ``outer`` is; empty where that is not known.
    """

    round: int
    lr: float
    weights: Vector
    algorithm: str = ""
    outer: Mapping[str, Vector] = field(default_factory=dict)
    workers: Mapping[int, WorkerState] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one run in ``folder``, a path or an fsspec URL; ``options`` are for its file system.

    ``every`` says after how many rounds ``after`` saves one (None: rounds do not count), ``seconds`` after
    how long at the latest, ``at_end`` whether it does after the last round too, and ``patience`` for how many
    seconds that may fail. What is saved is of the ``algorithm`` of that name.
    """

    algorithm = ""

    def __init__(
        self,
        folder: str,
        *,
        every: int | None = 1,
        seconds: float = math.inf,
        at_end: bool = True,
        keep: int = 2,
        patience: float = 600.0,
        **options: Any,
    ) -> None:
        for name, value in (("every", every), ("keep", keep)):
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value} checkpoints: at least 1 is needed")
        if patience < 0:
            raise UsageError(f"the patience with checkpoints is {patience:g} s: at least 0 is needed")
        self.folder, self.every, self.keep, self.patience = folder, every, keep, patience
        self.seconds, self.at_end = seconds, at_end
        self._options = options
        self._saved_at = time.monotonic()
        self.storage = self._opened()
        self._failing: _Failing | None = None
        self._owed = False

    @property
    def drain_every(self) -> int:
        """After how many rounds workers that compute ahead have to wait for each other, to be saved."""
        return self.every or _DRAIN_ROUNDS

    def after(self, done: Round, workers: Workers, outer: Outer, *, due: bool = False) -> bool:
        """Save the state of affairs after a round if one is ``due``, as it is after the last; whether it was.

        One that cannot be saved is due again after the next rounds, with growing pauses, and after the last
        round it is tried here until ``patience`` is over. Raises CheckpointError then. After a round whose
        workers have begun the next one already (``Settings.overlap``) nothing can be saved: it is due after
        the first round at which they wait for each other (``Settings.drain_every``).
        """
        self._owed = self._owed or due or self._is_due(done)
        if not (self._owed and done.drained):
            return False
        self._owed = False
        while True:
            try:
                self.save(_taken(done, workers, outer, self.algorithm))
            except CheckpointError as error:
                pause = self._put_off(error)
            else:
                self._well_again(done)
                self._saved_at = time.monotonic()
                return True
            if done.number != done.rounds:
                return False
            time.sleep(pause)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then remove those that are too many. Raises CheckpointError if it cannot."""
        size = sum(vector.nbytes for _, vector in _vectors(checkpoint))
        try:
            within(_CALL_SECONDS + size / _SLOW_BYTES, lambda: self._save(checkpoint), "saving it")
        except (OSError, UsageError) as error:
            raise CheckpointError(
                f"{self.folder}: round {checkpoint.round} could not be saved: {_meaning(error)}"
            ) from error

    def _save(self, checkpoint: Checkpoint) -> None:
        if self._failing:
            self.storage = self._opened()  # with the credentials of today
        self.storage.publish(_name(checkpoint.round), _contents(checkpoint))
        self._remove_old(checkpoint.round)

    def _opened(self) -> Storage:
        return storage(self.folder, last=_MANIFEST, **self._options)

    def _is_due(self, done: Round) -> bool:
        if done.number == done.rounds:
            return self.at_end
        if self._failing:
            return time.monotonic() >= self._failing.again
        is_turn = self.every is not None and done.number % self.every == 0
        return is_turn or time.monotonic() - self._saved_at >= self.seconds

    def _put_off(self, error: CheckpointError) -> float:
        """Saving fails, but not for too long yet: how long to pause. Raises CheckpointError if it is."""
        failing = self._failing = (self._failing or _Failing()).once_more(self.patience)
        if failing.seconds >= self.patience:
            raise CheckpointError(
                f"{error}. Nothing could be saved for {failing.seconds:.0f} s: more can be allowed "
                "(Checkpoints.patience, --checkpoint-patience)"
            ) from error
        left = self.patience - failing.seconds
        last = f", and the last {left:.0f} s from now" if math.isfinite(left) else ""
        log.warning("%s. Training goes on; the next try is in %.0f s%s", error, failing.pause, last)
        return failing.pause

    def _well_again(self, done: Round) -> None:
        if self._failing:
            log.warning(
                "%s: round %d is saved, after %.0f s of failing",
                self.folder,
                done.number,
                self._failing.seconds,
            )
        self._failing = None

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None if there has never been one.

        Raises CheckpointError if there are some and none can be used, or if the folder cannot be read.
        """
        broken = []
        for name in self._names():
            try:
                return self._load(name)
            except (CheckpointError, OSError, KeyError, TypeError, ValueError) as error:
                if _is_away(error):  # an older checkpoint in its place would undo rounds
                    raise CheckpointError(f"{self.folder} cannot be read: {_meaning(error)}") from error
                broken.append(f"{name}: {error}")
                log.warning("passed over a checkpoint in %s: %s", self.folder, broken[-1])
        if broken:
            raise CheckpointError(f"no checkpoint in {self.folder} can be used: {'; '.join(broken)}")
        return None

    def _names(self) -> list[str]:
        """All that were completed, the newest first."""
        try:
            return within(_CALL_SECONDS, lambda: self.storage.names("round-*"), "listing it")[::-1]
        except OSError as error:
            raise CheckpointError(f"{self.folder} cannot be read: {_meaning(error)}") from error

    def _load(self, name: str) -> Checkpoint:
        manifest = _opened(self._read(name, _MANIFEST))
        vectors = {file: self._vector(name, file, facts) for file, facts in manifest["files"].items()}
        return Checkpoint(
            round=int(manifest["round"]),
            lr=float(manifest["lr"]),
            weights=vectors["weights.f32"],
            algorithm=str(manifest.get("algorithm", "")),
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

    def _read(self, name: str, file: str, size: int = 0) -> bytes:
        seconds = _CALL_SECONDS + size / _SLOW_BYTES
        return within(seconds, lambda: self.storage.read(name, file), f"reading {file}")

    def _vector(self, name: str, file: str, facts: Mapping[str, Any]) -> Vector:
        size = int(facts["bytes"])
        if not 0 <= size <= _MOST_BYTES:
            raise CheckpointError(f"{file} is said to have {size:,} bytes")
        data = self._read(name, file, size)
        if facts != _facts(data):
            raise CheckpointError(f"{file} is not what was written ({len(data):,} bytes)")
        return np.frombuffer(data, "<f4").astype(np.float32)

    def _remove_old(self, newest: int) -> None:
        """Keep the last ones up to ``newest``; later ones belong to a run that this one has replaced."""
        names = self.storage.names("round-*")[::-1]
        past = [name for name in names if name <= _name(newest)]
        for name in [*(set(names) - set(past)), *past[self.keep :]]:
            self.storage.remove(name)


@dataclass(frozen=True, kw_only=True)
class _Failing:
    """Saving has failed ``since`` a time, and is tried ``again`` at another, with a ``pause`` before it."""

    since: float = field(default_factory=time.monotonic)
    again: float = 0.0
    pause: float = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    def once_more(self, patience: float) -> _Failing:
        """It has failed again; the last try comes when ``patience`` is over."""
        pause = min(max(_FIRST_PAUSE, 2 * self.pause), _LAST_PAUSE, max(0.0, patience - self.seconds))
        return _Failing(since=self.since, again=time.monotonic() + pause, pause=pause)


def resumed(checkpoint: Checkpoint | None, workers: Workers, outer: Outer) -> dict[str, Any]:
    """Put workers and outer optimiser back to ``checkpoint``, if any; returns arguments for ``train``."""
    if checkpoint is None:
        return {}
    outer.resume(checkpoint.outer)
    workers.restore(checkpoint.workers)
    return {"weights": checkpoint.weights, "done": checkpoint.round, "lr": checkpoint.lr}


def _taken(done: Round, workers: Workers, outer: Outer, algorithm: str) -> Checkpoint:
    """What is to be saved after a round."""
    return Checkpoint(
        round=done.number,
        lr=done.lr,
        weights=done.weights,
        algorithm=algorithm,
        outer=outer.state,
        workers=workers.states(),
    )


def _is_away(error: Exception) -> bool:
    """Whether the store does not give what it may well have, as opposed to a file that is gone or rotten."""
    broken = isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and error.errno == errno.EIO)
    return isinstance(error, OSError) and not broken


def _meaning(error: Exception) -> str:
    """What an error of the store's says, and what that means where it is known."""
    said = str(error)
    meant = next((meaning for answer, meaning in _MEANINGS.items() if answer in said), None)
    return f"{meant} ({said})" if meant else said


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
        "algorithm": checkpoint.algorithm,
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
