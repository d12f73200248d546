"""Solver snapshots, ``.solverstate`` (binary protobuf) and ``.solverstate.h5``: Caffe can go on from them.

Both hold the iteration, the step of the learning rate, the path of the weights that belong to it, and the
history of the update rule: one blob for every learnable blob in the order of the net, and for Adam and
AdaDelta the second moments of all blobs after the first ones of all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import torch
from google.protobuf.message import DecodeError

from sparknet.caffe.files.blobs import decode_blob, encode_blob
from sparknet.caffe.files.hdf5 import DAMAGED, array, values
from sparknet.caffe.files.kinds import BLOB, WEIGHTS, hint, is_hdf5
from sparknet.caffe.schema import caffe_pb2, weights_pb2
from sparknet.errors import ModelError

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SolverState:
    """What a solver needs beyond the weights to go on as if it had never stopped.

    ``history`` are float32 CPU tensors of the shapes of the learnable blobs, ``learned_net`` is a path.
    """

    iter: int
    current_step: int = 0
    learned_net: str = ""
    history: tuple[torch.Tensor, ...] = field(default=(), repr=False)


def read(path: str | Path) -> SolverState:
    """The state in ``path``, HDF5 or binary: its beginning says which.

    Raises ModelError if it is missing or broken.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such solver state")
    return _read_hdf5(path) if is_hdf5(path) else _read_binary(path)


def write(path: str | Path, state: SolverState) -> None:
    """Write ``state`` to ``path``, as HDF5 if its name ends in ``.h5``.

    The file is there wholly or not at all. Raises ModelError if it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        _write_hdf5(partial, state) if path.suffix == ".h5" else partial.write_bytes(_binary(state))
        partial.replace(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot write the solver state: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def flattened(history: Sequence[torch.Tensor], shapes: Sequence[Shape]) -> list[torch.Tensor]:
    """The blobs of a history as flat vectors, one for every ``len(shapes)`` blobs.

    Raises ModelError unless the blobs have these shapes, over and over; or four axes, the first ones 1.
    """
    if len(history) % max(len(shapes), 1):
        raise ModelError(
            f"the solver state holds {len(history)} history blobs, "
            f"which is no multiple of the net's {len(shapes)}"
        )
    for number, (blob, shape) in enumerate(zip(history, _repeated(shapes, len(history)), strict=True)):
        if tuple(blob.shape) not in (shape, (1,) * (4 - len(shape)) + shape):  # the latter before 2015
            raise ModelError(
                f"history blob {number} of the solver state is {tuple(blob.shape)}, the net's is {shape}: "
                "it belongs to another net"
            )
    rounds = range(0, len(history), max(len(shapes), 1))
    return [torch.cat([blob.flatten() for blob in history[i : i + len(shapes)]]) for i in rounds]


def shaped(vectors: Iterable[torch.Tensor], shapes: Sequence[Shape]) -> tuple[torch.Tensor, ...]:
    """The inverse of ``flattened``: copies on the CPU, of the blobs' shapes."""
    blobs: list[torch.Tensor] = []
    for vector in vectors:
        sizes = [int(np.prod(shape)) for shape in shapes]
        pieces = torch.split_with_sizes(vector.detach().cpu().clone(), sizes)
        blobs += [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
    return tuple(blobs)


def _repeated(shapes: Sequence[Shape], count: int) -> Iterator[Shape]:
    return (shapes[number % len(shapes)] for number in range(count))


def _read_binary(path: Path) -> SolverState:
    message, weights = caffe_pb2.SolverState(), weights_pb2.State()
    try:
        weights.ParseFromString(path.read_bytes())
        history = tuple(decode_blob(blob, str(path)).data for blob in weights.history)
        weights.ClearField("history")
        message.ParseFromString(weights.SerializeToString())  # what it does not know it has kept
        learned_net = os.fsdecode(message.learned_net)  # bytes, if they are not UTF-8
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    except (DecodeError, ModelError) as error:
        raise _refused(path, error) from error
    if not message.HasField("iter") or (not history and hint(path) == f": {BLOB}"):
        raise _refused(path, None)
    return _checked(
        path,
        SolverState(
            iter=message.iter, current_step=message.current_step, learned_net=learned_net, history=history
        ),
    )


def _refused(path: Path, error: Exception | None) -> ModelError:
    """An error that says what the file is instead, if that is known, or else why it cannot be read."""
    why = hint(path) or (f", or it is cut short: {error}" if error else "")
    if WEIGHTS in why:
        why += "; the state that belongs to it ends in .solverstate (weights alone are given as --weights)"
    return ModelError(f"{path}: this is not a solver state{why}")


def _checked(path: Path, state: SolverState) -> SolverState:
    """``state``, if its counts can be."""
    for name, value in (("iteration", state.iter), ("step", state.current_step)):
        if value < 0:
            raise ModelError(f"{path}: the {name} of this solver state is {value}: the file is damaged")
    if "\0" in state.learned_net:
        raise ModelError(f"{path}: it names {state.learned_net!r} as its weights: the file is damaged")
    return state


def _binary(state: SolverState) -> bytes:
    """The bytes of two messages, one after the other, are those of their union."""
    message = caffe_pb2.SolverState(
        iter=state.iter, current_step=state.current_step, learned_net=state.learned_net
    )
    weights = weights_pb2.State(history=[encode_blob(blob) for blob in state.history])
    return message.SerializeToString() + weights.SerializeToString()


def _read_hdf5(path: Path) -> SolverState:
    try:
        with h5py.File(path) as file:
            blobs = file["history"]
            history = [torch.from_numpy(array(blobs[str(i)])) for i in range(len(blobs))]
            name = values(file["learned_net"]) if "learned_net" in file else b""
            state = SolverState(
                iter=int(values(file["iter"])[0]),
                current_step=int(values(file["current_step"])[0]) if "current_step" in file else 0,
                learned_net=name.decode() if isinstance(name, bytes) else str(name),
                history=tuple(history),
            )
    except DAMAGED as error:
        raise _refused(path, error) from error
    return _checked(path, state)


def _write_hdf5(path: Path, state: SolverState) -> None:
    with h5py.File(path, "w") as file:
        file["iter"] = np.array([state.iter], dtype=np.int32)
        file["current_step"] = np.array([state.current_step], dtype=np.int32)
        # of fixed length and ended by a zero: Caffe reads it into a C string
        name = state.learned_net.encode()
        file["learned_net"] = np.array(name, dtype=f"S{len(name) + 1}")
        blobs = file.create_group("history")
        for number, tensor in enumerate(state.history):
            blobs[str(number)] = tensor.numpy()
