#!/usr/bin/env bash
# Prints what Spark may use of this node: cores, memory in MiB, GPUs that answer. Changes nothing.
# A process host shares its machine with others, and is told its part of the memory.
set -euo pipefail

memory_mib=${SPARKNET_HOST_MEMORY_MIB:-$(awk '$1 == "MemTotal:" { print int($2 / 1024) }' /proc/meminfo)}
gpus=0
if command -v nvidia-smi >/dev/null 2>&1; then
    gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | grep -c . || true)
fi
printf 'user=%s\ncores=%s\nmemory_mib=%s\ngpus=%s\n' "$(id -un)" "$(nproc)" "$memory_mib" "$gpus"
