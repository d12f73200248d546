"""What runs in an executor: read the partition, join the driver, and work until it says stop.

A task may use its part of the machine it runs on: the GPU that Spark gave it, and a share of the memory.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import torch
from pyspark import TaskContext

from sparknet.data.dataset import Shard
from sparknet.data.growable import MemoryLimit, share_of_memory, spill_folder
from sparknet.distributed.comm.handshake import Identity
from sparknet.distributed.worker_service import Assignment, Service
from sparknet.errors import TrainingError
from sparknet.notice import Notice
from sparknet.spark.profile import Profile


def work(
    assignment: Assignment, drain: Callable[[MemoryLimit], Shard], profile: Profile | None = None
) -> None:
    """Serve as one worker until the driver says stop. Raises what ends it otherwise: Spark tries again."""
    context = TaskContext.get()
    if context is None:
        raise TrainingError("there is no Spark task here: this function is for executors")
    choose_gpu(context)
    who = Identity(
        partition=context.partitionId(),
        attempt=context.taskAttemptId(),
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    limit = memory_limit(context, assignment.memory_bytes)
    service = Service(assignment, who, lambda: drain(limit), Notice.of_environment())
    service.run()
    if profile:
        profile.keep(who, service.tracer)


def partition_id() -> int:
    """That of the task this runs in; 0 outside of tasks."""
    context = TaskContext.get()
    return context.partitionId() if context else 0


def attempt_number() -> int:
    """How often the task this runs in has been tried before; 0 outside of tasks."""
    context = TaskContext.get()
    return context.attemptNumber() if context else 0


def memory_limit(context: TaskContext, memory_bytes: int | None) -> MemoryLimit:
    """Of a shard: ``memory_bytes``, or what as many tasks as there are cores for may have each."""
    tasks = (os.cpu_count() or 1) // context.cpus()
    memory = share_of_memory(tasks) if memory_bytes is None else memory_bytes
    return MemoryLimit(memory_bytes=memory, folder=spill_folder())


def choose_gpu(context: TaskContext) -> None:
    """Show this process the GPU that Spark gave the task, and no other.

    Without GPUs among Spark's resources it sees what the machine has. Raises TrainingError in a process that
    computes on another one since an earlier task: Spark starts the task again, in a new process.
    """
    gpus = context.resources().get("gpu")
    if not gpus:
        return
    given, seen = ",".join(gpus.addresses), os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.cuda.is_initialized() and seen != given:  # type: ignore[no-untyped-call]
        raise TrainingError(
            f"this process computes on GPU {seen or 'unknown'} and was given {given}: another must take over"
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = given
