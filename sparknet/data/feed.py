"""From a shard to the batches of a round: gathered, transformed and brought to the net's device, one ahead.

    sampler ── which records ──> Feed ── gather, transform, copy ──> Ahead ── Ready ──> the step
                                 └──────── in a thread of its own ────────┘

While a step computes, the next batch is made. On a GPU it is gathered into pinned memory and copied on a
stream of its own, so that neither the copy nor the transform waits for the step. What is read, and with
which random numbers, is decided by (seed, worker, step) alone: with the thread or without, the batches are
the same.
"""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from sparknet.data.dataset import Batch, Selection, Shard
from sparknet.data.preprocessing import Transform
from sparknet.data.shards import Sampler

Item = TypeVar("Item")
Transforms = Transform | Mapping[str, Transform]
"""The transform of the column ``data``, or of several by their names."""

TARGETS = frozenset({"label", "weight"})
"""Columns that no net takes in: its loss does."""

_END = object()


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A batch that is ready, or on its way to the GPU until ``arrived`` (a CUDA event).

    ``seed`` is for torch's generator in the step it is for, ``position`` the sampler's once it was chosen.
    """

    batch: Batch
    seed: int
    position: int
    arrived: Any = None

    def wait(self) -> Batch:
        """The batch, once whatever the calling thread computes on the GPU next will find it there."""
        if self.arrived is not None:
            stream = torch.cuda.current_stream()
            stream.wait_event(self.arrived)
            for tensor in self.batch.values():
                tensor.record_stream(stream)
        return self.batch


class Feed:
    """Makes training batches of ``shard`` for a net on ``device``.

    The pictures of a batch that lie side by side are not copied before they are transformed. ``transforms``
    go by the columns' names; a single one is that of ``data``.
    """

    def __init__(self, shard: Shard, transforms: Transforms, device: torch.device) -> None:
        self.transforms, self.device = by_column(transforms), device
        self._columns = {name: as_tensor(array) for name, array in shard.columns.items()}
        self._pinned = _Pinned(device) if device.type == "cuda" else None

    def round(
        self, sampler: Sampler, *, steps: int, batches_per_step: int, seeds: tuple[int, ...], first: int
    ) -> Iterator[Ready]:
        """The batches of ``steps`` steps; step i draws from a generator seeded by (*seeds, first + i)."""
        selections = sampler.batches(steps * batches_per_step)
        for step in range(first, first + steps):
            draws = np.random.default_rng([*seeds, step])
            seed = int(draws.integers(1 << 62))
            for _ in range(batches_per_step):
                yield self._ready(next(selections), draws, seed, sampler)

    def _ready(self, which: Selection, draws: np.random.Generator, seed: int, sampler: Sampler) -> Ready:
        if self._pinned is None:
            batch = {name: _rows(rows, which) for name, rows in self._columns.items()}
            return Ready(batch=self._made(batch, draws), seed=seed, position=sampler.position)
        with torch.cuda.stream(self._pinned.stream):
            batch = self._made(self._pinned.sent(self._columns, which), draws)
            arrived = self._pinned.stream.record_event()
        return Ready(batch=batch, seed=seed, position=sampler.position, arrived=arrived)

    def _made(self, batch: dict[str, torch.Tensor], draws: np.random.Generator) -> dict[str, torch.Tensor]:
        return {
            name: for_net(self.transforms.get(name), rows, train=True, rng=draws, own=name in TARGETS)
            for name, rows in batch.items()
        }


class Ahead(Generic[Item]):
    """Iterates over ``items``, each made in a thread of its own while the one before is in use.

    An exception in the making is raised where its item was due. Leaving the ``with`` ends the thread. Fewer
    than two items are made here and now: there is nothing to be ahead of.
    """

    def __init__(self, items: Iterator[Item], count: int) -> None:
        self._items = items
        self._made: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._wanted = threading.Semaphore(1)
        self._over = False
        self._thread = threading.Thread(target=self._make, name="sparknet-feed", daemon=True)
        self._threaded = count > 1

    def __enter__(self) -> Self:
        if self._threaded:
            self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._threaded:
            self._over = True
            self._wanted.release()
            self._thread.join()

    def __iter__(self) -> Iterator[Item]:
        return self._taken() if self._threaded else self._items

    def _taken(self) -> Generator[Item, None, None]:
        while (made := self._made.get()) is not _END:
            if isinstance(made, BaseException):
                raise made
            self._wanted.release()
            yield made

    def _make(self) -> None:
        try:
            while self._next_wanted() and (item := next(self._items, _END)) is not _END:
                self._made.put(item)
            self._made.put(_END)
        except BaseException as error:  # noqa: BLE001 - raised where the item was due
            self._made.put(error)

    def _next_wanted(self) -> bool:
        self._wanted.acquire()
        return not self._over


class _Pinned:
    """Two page-locked buffers in turn, and the stream that empties them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._slots: list[dict[str, torch.Tensor]] = [{}, {}]
        self._emptied: list[torch.cuda.Event | None] = [None, None]
        self._turn = 0

    def sent(self, columns: Mapping[str, torch.Tensor], which: Selection) -> dict[str, torch.Tensor]:
        """The chosen rows on the device, copied there on ``stream``, which must be the current one."""
        self._turn ^= 1
        emptied = self._emptied[self._turn]
        if emptied is not None:
            emptied.synchronize()
        copies = {name: self._copied(name, rows, which) for name, rows in columns.items()}
        self._emptied[self._turn] = self.stream.record_event()
        return copies

    def _copied(self, name: str, rows: torch.Tensor, which: Selection) -> torch.Tensor:
        count = which.stop - which.start if isinstance(which, slice) else len(which)
        slot = self._slots[self._turn]
        if name not in slot or len(slot[name]) < count:
            slot[name] = torch.empty((count, *rows.shape[1:]), dtype=rows.dtype, pin_memory=True)
        staged = slot[name][:count]
        if isinstance(which, slice):
            staged.copy_(rows[which])
        else:
            torch.index_select(rows, 0, torch.from_numpy(which), out=staged)
        return staged.to(self.device, non_blocking=True)


def by_column(transforms: Transforms | None) -> Mapping[str, Transform]:
    """The transforms by name of column; a single one is that of ``data``."""
    if transforms is None:
        return {}
    return {"data": transforms} if isinstance(transforms, Transform) else transforms


def for_net(
    transform: Transform | None,
    rows: torch.Tensor,
    *,
    train: bool,
    rng: np.random.Generator | None = None,
    own: bool = False,
) -> torch.Tensor:
    """What a net is given of a column: transformed, or as it is, bytes as float32.

    It is memory of its own, which the net may overwrite, unless ``own`` says that nobody does.
    """
    if transform is not None:
        return transform(rows, train=train, rng=rng)
    if rows.dtype == torch.uint8:
        return rows.float()
    return rows if own else rows.clone()


def as_tensor(rows: NDArray[Any]) -> torch.Tensor:
    """The same memory as a tensor, which is read only, though torch cannot say so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(rows)


def _rows(rows: torch.Tensor, which: Selection) -> torch.Tensor:
    return rows[which] if isinstance(which, slice) else rows.index_select(0, torch.from_numpy(which))
