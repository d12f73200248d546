#!/usr/bin/env bash
# Afterwards: if the instance type has GPUs, so many answer, with a driver of at least $OLDEST_DRIVER.
# Changes nothing. EXPECTED_GPUS is 0 for a type without.
set -euo pipefail

expected=${EXPECTED_GPUS:-0}
[ "$expected" -gt 0 ] || exit 0

command -v nvidia-smi >/dev/null 2>&1 || {
    echo "the instance type has $expected GPUs and the image has no NVIDIA driver; use a Deep Learning image" >&2
    exit 1
}
found=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader)
count=$(printf '%s\n' "$found" | grep -c .)
driver=$(printf '%s\n' "$found" | head -n 1)
[ "$count" -eq "$expected" ] || { echo "$count of $expected GPUs answer" >&2; exit 1; }
[ "${driver%%.*}" -ge "${OLDEST_DRIVER:-0}" ] || {
    echo "the NVIDIA driver is $driver; torch needs $OLDEST_DRIVER or newer: use a newer image" >&2
    exit 1
}
