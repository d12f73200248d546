"""What a task may use of the machine it runs on: its GPU, and its part of the memory."""

from __future__ import annotations

import os

import torch
from pyspark import TaskContext

from sparknet.data.growing import Room, spill_folder
from sparknet.data.memory import share_of_memory
from sparknet.errors import TrainingError


def room_for(context: TaskContext, memory_bytes: int | None) -> Room:
    """Room for a shard: ``memory_bytes``, or what as many tasks as there are cores for may have each."""
    tasks = (os.cpu_count() or 1) // context.cpus()
    memory = share_of_memory(tasks) if memory_bytes is None else memory_bytes
    return Room(memory_bytes=memory, folder=spill_folder())


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
