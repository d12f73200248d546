#!/usr/bin/env bash
# torch.distributed's gloo, three things a good guess gets wrong (torch 2.13.0, CPU, one machine):
#   1. all_reduce adds the ranks in an order that depends on the element's place in the tensor: all ranks get the
#      same numbers, but equal inputs at different places give different sums, so that cutting a vector into
#      other buckets changes bits.
#   2. all_reduce works on memory order and ignores strides: a channels_last tensor on one rank and a contiguous
#      one on the other "sum" without an error, to numbers that are no sum of the two.
#   3. all_reduce with ReduceOp.AVG of integers raises, after it has overwritten the tensor.
# With torch 2.13.0 (Python 3.11), output:
#   sums of the same four numbers: [0.0, 1.0]
#   mixed strides are summed: False
#   the average of integers: result type Float can't be cast to the desired output type L
#   and the integers are as they were: False
# Exits non-zero if that is no longer so. PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu makes torch smaller.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat >"$folder/ranks.py" <<'PY'
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def work(rank, port, queue):
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=4)
    found = {}

    values = [1e8, 1.0, -1e8, 1.0]
    tensor = torch.full((4096,), values[rank])
    dist.all_reduce(tensor)
    found["sums of the same four numbers"] = sorted(set(tensor.tolist()))

    picture = torch.arange(24.0).view(1, 2, 3, 4)
    form = torch.channels_last if rank else torch.contiguous_format
    mixed = picture.clone().contiguous(memory_format=form)
    dist.all_reduce(mixed)
    found["mixed strides are summed"] = bool(torch.equal(mixed.contiguous(), 4 * picture))

    integers = torch.full((4,), 3 + rank)
    try:
        dist.all_reduce(integers, op=dist.ReduceOp.AVG)
        found["the average of integers"] = "no error"
    except RuntimeError as error:
        found["the average of integers"] = str(error)[:60]
    found["and the integers are as they were"] = integers.tolist() == [3 + rank] * 4
    queue.put((rank, found))


if __name__ == "__main__":
    queue = mp.get_context("spawn").SimpleQueue()
    mp.spawn(work, (int(sys.argv[1]), queue), nprocs=4)
    found = dict(queue.get() for _ in range(4))[0]
    print("torch", torch.__version__)
    for name, value in found.items():
        print(f"{name}: {value}")
    as_found = (
        len(found["sums of the same four numbers"]) > 1
        and not found["mixed strides are summed"]
        and found["the average of integers"] != "no error"
        and not found["and the integers are as they were"]
    )
    sys.exit(0 if as_found else 1)
PY
port=$("$folder/venv/bin/python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
timeout 120 "$folder/venv/bin/python" "$folder/ranks.py" "$port"
