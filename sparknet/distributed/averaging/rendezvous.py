"""Groups of workers, of torch.distributed (gloo on CPUs, NCCL on GPUs) without its global state.

A group lives as long as its members do, and a new one takes its place. The members find each other in a store
of the driver's, under a key that it has drawn for them.

Gloo and NCCL know no authentication: workers must be on a network of their own, as Spark's are. What they are
asked to do, and the random name under which a group's members find each other, come in authenticated frames.

NCCL has a thread of its own that ends the process when an operation fails or is late. Here whoever waits gets
an error instead, so that those who are left can form another group: operations report errors to their waiters
(TORCH_NCCL_BLOCKING_WAIT), which also leaves that thread out, and connecting has a deadline (communicators
that do not block, TORCH_NCCL_NONBLOCKING_TIMEOUT). See torch's ProcessGroupNCCL.hpp.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist

from sparknet.codecs import Codec

_dist: Any = dist  # its stubs leave out what is used here

MakeGroup = Callable[[str, int, int], Any]
"""Makes a group: of its key, my rank, and its size. Raises RuntimeError if a member does not come."""


Backend = Literal["gloo", "nccl"]


def nccl_is_here() -> bool:
    """Whether this torch was built with NCCL."""
    return bool(dist.is_nccl_available())


def new_store(host: str) -> Any:
    """The store where the members of a group find each other: a TCPStore on a free port of ``host`` alone."""
    listener = socket.create_server((host, 0))
    port = listener.getsockname()[1]
    return _dist.TCPStore(
        host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )


class AbortFlag:
    """That a group is over, for members that wait for one that is gone: a key of the store ``under`` the
    group's own."""

    def __init__(self, under: Callable[[str], Any]) -> None:
        self._under = under

    @classmethod
    def of(cls, store: Any) -> AbortFlag:
        return cls(lambda key: _dist.PrefixStore(key, store))

    def set(self, key: str) -> None:
        self._under(key).set("over", "")

    def is_set(self, key: str) -> bool:
        return bool(self._under(key).check(["over"]))


class Rendezvous:
    """How one worker finds others: ``store`` is the address of the driver's store, ``host`` one of this
    worker that they can reach, ``seconds`` how long anything is waited for.
    """

    def __init__(self, store: tuple[str, int], host: str, seconds: float) -> None:
        self.seconds = seconds
        self._address, self._host, self._timeout = store, host, timedelta(seconds=seconds)
        self._store: Any = None

    def gloo(self, key: str, rank: int, size: int) -> Any:
        """A group that averages tensors in host memory."""
        options = _dist.ProcessGroupGloo._Options()
        options._timeout = self._timeout
        options._devices = [_dist.ProcessGroupGloo.create_device(hostname=self._host)]
        return _dist.ProcessGroupGloo(self._under(key), rank, size, options)

    def nccl(self, device: torch.device) -> MakeGroup:
        """Groups that average tensors on ``device``."""

        def make_group(key: str, rank: int, size: int) -> Any:
            os.environ["TORCH_NCCL_BLOCKING_WAIT"] = "1"
            os.environ["TORCH_NCCL_NONBLOCKING_TIMEOUT"] = str(math.ceil(self.seconds))
            options = _dist.ProcessGroupNCCL.Options()
            options._timeout = self._timeout
            options.config.blocking = 0
            group = _dist.ProcessGroupNCCL(self._under(key), rank, size, options)
            with ExitStack() as undo:
                undo.callback(group.abort)
                group.eager_connect_single_device(device)
                undo.pop_all()
            return group

        return make_group

    @property
    def abort_flag(self) -> AbortFlag:
        return AbortFlag(self._under)

    def _under(self, key: str) -> Any:
        if self._store is None:
            host, port = self._address
            self._store = _dist.TCPStore(
                host, port, is_master=False, wait_for_workers=False, timeout=self._timeout
            )
        return _dist.PrefixStore(key, self._store)


def averaging_gpu(device: torch.device, codec: Codec) -> str:
    """The GPU by which a worker with weights on ``device`` can average with NCCL; "" for none.

    NCCL brings float32: for a ``codec`` of fewer bits weights go through host memory.
    """
    if device.type != "cuda" or not codec.is_lossless or not nccl_is_here():
        return ""
    return str(torch.cuda.get_device_properties(device).uuid)


def choose_backend(gpus: Sequence[str]) -> Backend:
    """What a group averages with whose members named these GPUs.

    NCCL takes each GPU once. Workers that share one, or have none, average in host memory, and so do all the
    others of their group.
    """
    return "nccl" if all(gpus) and len(set(gpus)) == len(gpus) else "gloo"
