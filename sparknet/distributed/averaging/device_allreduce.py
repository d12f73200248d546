"""Averaging among workers where their weights lie, on their GPUs, without a copy in host memory.

    alltoall   worker j gets part j of everyone's weights          (K, n / K)
    mean       in float32, in the order of the ranks               (n / K,)
    allgather  everyone gets the parts' means                      (n,)

As ``host_allreduce.py`` does on the host, and with the same numbers, but by collective operations, which NCCL
brings over NVLink, PCIe or the network as it finds them. The vector goes in chunks, so that memory beside
it is bounded, and one chunk is on its way while another is averaged.

Any device will do, and any group that has the two operations: a CPU and gloo too. The numbers are those of
``sparknet.merge`` and ``sparknet.weights.mean_of``, bit for bit: the same operations in the same order.
``distance`` alone is summed differently, as a sum over a GPU's threads is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch

from sparknet.distributed.averaging.pipeline import delayed
from sparknet.distributed.averaging.rendezvous import AbortFlag, MakeGroup
from sparknet.merge import Statistics

# Elements in a chunk: 32 MB of float32.
_CHUNK = 1 << 23
# Chunks on their way in each of the two steps.
_DEPTH = 2
# Elements whose differences are made at a time.
_BLOCK = 1 << 22
# Seconds between two looks at whether an operation has ended.
_LOOK_SECONDS = 5e-5
# ... and at whether the group is over: NCCL does not always notice that a peer has died.
_ABORT_SECONDS = 0.1


class DeviceAllReduce:
    """One worker's part in all-reduces on ``device``; ``sent`` counts the bytes it sent to the others.

    ``make_group`` makes groups. An operation that has not ended within ``seconds`` has failed, and ends the
    group; it sets the ``abort_flag``, which the others look at; the driver sets it too when it has lost one
    of them. ``moves`` is called when an operation has ended.
    """

    def __init__(
        self,
        make_group: MakeGroup,
        device: torch.device,
        seconds: float,
        statistics: Sequence[Statistics] = (),
        chunk: int = _CHUNK,
        abort_flag: AbortFlag | None = None,
        moves: Callable[[], None] = lambda: None,
    ) -> None:
        self._make_group, self._seconds, self._chunk, self._abort_flag = (
            make_group,
            seconds,
            chunk,
            abort_flag,
        )
        self._moves = moves
        self._spread = Spread(statistics, device)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._group: Any = None
        self._key, self._rank, self._size = "", 0, 1
        self.sent = 0

    def join(self, key: str, rank: int, size: int) -> None:
        """Be number ``rank`` of ``size`` members of group ``key``. Raises RuntimeError if one is missing."""
        if size > 1 and (self._group is None or key != self._key):
            self.leave()
            self._group = self._make_group(key, rank, size)
        self._key, self._rank, self._size = key, rank, size

    def leave(self) -> None:
        """Leave the group; operations still under way are aborted."""
        group, self._group = self._group, None
        if group is not None:
            group.abort()

    def average(self, vector: torch.Tensor, steps: Sequence[int], out: torch.Tensor) -> None:
        """Write to ``out`` the mean of the members' vectors, float32 (P,), each counted by its steps.

        Raises RuntimeError if a member is gone: ``vector`` is as it was, and a group of the others can do it
        again.
        """
        if self._size == 1:
            out.copy_(vector)
            return
        with self._attempt():
            chunks = (self._scatter(vector[whole], out[whole]) for whole in self._chunks(vector.numel()))
            reduced = (self._reduce(chunk, steps) for chunk in delayed(chunks, _DEPTH))
            for chunk in delayed(reduced, _DEPTH):
                self._gather(chunk)

    def widen(self, vector: torch.Tensor, steps: Sequence[int], mean: torch.Tensor) -> None:
        """Add the spread of the members' running means to the variances in ``mean``."""
        if self._size == 1 or not self._spread:
            return
        with self._attempt():
            own = self._spread.of(mean, vector, steps[self._rank])
            all_of_them = own.new_empty((self._size, *own.shape))
            self._finish(self._all_gather(all_of_them, own))
            self._spread.widen(mean, list(all_of_them))

    def _chunks(self, length: int) -> Iterator[slice]:
        """As many whole parts in each as there are members; the last may be shorter."""
        each = max(1, self._chunk // self._size) * self._size
        return (slice(start, min(start + each, length)) for start in range(0, length, each))

    def _scatter(self, vector: torch.Tensor, out: torch.Tensor) -> _Chunk:
        """Send the others their parts, and begin to receive my part of theirs."""
        part = -(-vector.numel() // self._size)
        full = vector
        if part * self._size > vector.numel():  # the last: all parts must be equally long
            full = vector.new_zeros(part * self._size)
            full[: vector.numel()] = vector
        arriving = torch.empty_like(full)
        self.sent += (self._size - 1) * part * vector.element_size()
        work = self._group.alltoall_base(arriving, full, [], [])
        return _Chunk(out, arriving.view(self._size, part), work)

    def _reduce(self, chunk: _Chunk, steps: Sequence[int]) -> _Chunk:
        """Make the mean of my part, send it to the others, and begin to receive the means of theirs."""
        self._finish(chunk.work)
        mean = torch.empty_like(chunk.parts[0])
        mean_of(list(chunk.parts), steps, out=mean)
        whole = (
            chunk.out if chunk.out.numel() == chunk.parts.numel() else torch.empty_like(chunk.parts.view(-1))
        )
        return _Chunk(chunk.out, whole, self._all_gather(whole, mean))

    def _gather(self, chunk: _Chunk) -> None:
        self._finish(chunk.work)
        if chunk.parts is not chunk.out:
            chunk.out.copy_(chunk.parts[: chunk.out.numel()])

    def _all_gather(self, everyone: torch.Tensor, own: torch.Tensor) -> Any:
        """Send ``own`` to all, and begin to receive theirs, one after the other into ``everyone``."""
        self.sent += (self._size - 1) * own.nbytes
        return self._group._allgather_base(everyone.view(-1), own.view(-1))

    def _finish(self, work: Any) -> None:
        """Wait until it is done, here and on the device. Raises RuntimeError if it failed, or is late."""
        looked = began = time.monotonic()
        while not work.is_completed():
            now = time.monotonic()
            if now > began + self._seconds:
                raise RuntimeError(
                    f"an operation of NCCL with the other workers did not end within {self._seconds:g} s"
                )
            if self._abort_flag and now > looked + _ABORT_SECONDS:
                looked = now
                if self._abort_flag.is_set(self._key):
                    raise RuntimeError("one of the other workers is gone, or has given up")
            time.sleep(_LOOK_SECONDS)
        work.wait()  # raises what went wrong
        self._moves()

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        """On a stream of its own, which has done all at the end; an error ends the group."""
        try:
            with self._apart():
                yield
                if self._stream is not None:
                    self._stream.synchronize()  # operations of the group have ended: it waits for nobody
        except RuntimeError:
            if self._abort_flag:
                with suppress(RuntimeError):  # the driver may be gone
                    self._abort_flag.set(self._key)
            self.leave()
            raise

    @contextmanager
    def _apart(self) -> Iterator[None]:
        if self._stream is None:
            yield
            return
        # what the net has computed comes first
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            yield


@dataclass(frozen=True)
class _Chunk:
    """A chunk of the vector on its way: ``parts`` is where it arrives, (K, n / K) and then (n,), ``out``
    float32 (n,) where its mean will be.
    """

    out: torch.Tensor
    parts: torch.Tensor
    work: Any


def mean_of(vectors: Sequence[torch.Tensor], shares: Sequence[int], out: torch.Tensor) -> None:
    """The mean of the vectors, float32 (n,), the k-th counted ``shares[k]`` times, as ``weights.mean_of``.

    Takes memory of two float64 (n,) while it is made.
    """
    divisor = math.gcd(*shares)
    factors = [share // divisor for share in shares]
    if factors == [1, 1]:
        torch.add(vectors[0], vectors[1], out=out).mul_(0.5)
        return
    total = vectors[0].double().mul_(factors[0])
    for vector, factor in zip(vectors[1:], factors[1:], strict=True):
        total.add_(vector.double().mul_(factor))
    out.copy_(total.div_(sum(factors)))


def distance(start: torch.Tensor, vector: torch.Tensor) -> float:
    """The L2 norm of ``vector - start``; infinite if anything in it is not finite, or beyond 1e19."""
    norms = [
        torch.linalg.vector_norm(now - then)
        for now, then in zip(torch.split(vector, _BLOCK), torch.split(start, _BLOCK), strict=True)
    ]
    total = float(torch.linalg.vector_norm(torch.stack(norms), dtype=torch.float64)) if norms else 0.0
    return total if math.isfinite(total) else math.inf


class Spread:
    """Where the running means and variances of all layers lie, and how the former spread from worker to
    worker: what ``Statistics`` does for one layer, N numbers at once."""

    def __init__(self, statistics: Sequence[Statistics], device: torch.device) -> None:
        self._means = _places([entry.mean for entry in statistics], device)
        self._variances = _places([entry.variance for entry in statistics], device)
        scales = [-1 if entry.scale is None else entry.scale for entry in statistics]
        lengths = [entry.mean.stop - entry.mean.start for entry in statistics]
        self._scales = torch.tensor(scales, dtype=torch.int64, device=device).repeat_interleave(
            torch.tensor(lengths, dtype=torch.int64, device=device)
        )

    def __bool__(self) -> bool:
        return self._means.numel() > 0

    def of(self, merged: torch.Tensor, vector: torch.Tensor, share: int) -> torch.Tensor:
        """float64 (2, N): the weighted squares of one worker's distances from the ``merged`` means, and the
        weights."""
        scale = self._scale(vector)
        means, middle = vector[self._means].double(), merged[self._means].double()
        squares = (means / scale - middle / self._scale(merged)).square()
        weights = share * scale
        nothing = torch.zeros_like(weights)  # of one that has seen no batch
        return torch.stack([torch.where(scale == 0, nothing, weights * squares), weights])

    def widen(self, merged: torch.Tensor, spreads: Sequence[torch.Tensor]) -> None:
        """Add what ``of`` gave for each worker to the variances in ``merged``."""
        squares, weights = sum(spreads, torch.zeros((), dtype=torch.float64, device=merged.device))
        added = (squares / weights * self._scale(merged)).float()
        variances = merged[self._variances]
        merged[self._variances] = torch.where(weights == 0, variances, variances + added)

    def _scale(self, vector: torch.Tensor) -> torch.Tensor:
        """What each of the N means has been multiplied by."""
        scales = vector[self._scales].double()
        return torch.where(self._scales < 0, torch.ones_like(scales), scales)


def _places(slices: Sequence[slice], device: torch.device) -> torch.Tensor:
    ranges = [torch.arange(part.start, part.stop, device=device) for part in slices]
    return torch.cat(ranges) if ranges else torch.empty(0, dtype=torch.int64, device=device)
