#!/usr/bin/env bash
# Prints what a node knows of its disks, for infra/disks.py to plan from. Changes nothing.
set -euo pipefail

root=${SPARKNET_ROOT:-}

echo "== links" # by-id name, kernel name, file system, label
for link in "$root"/dev/disk/by-id/nvme-*; do
    [ -e "$link" ] || continue
    type=$(sudo blkid -o value -s TYPE "$link" || true)
    label=$(sudo blkid -o value -s LABEL "$link" || true)
    device=$(readlink "$link")
    printf '%s\t%s\t%s\t%s\n' "${link##*/}" "${device##*/}" "$type" "$label"
done
echo "== lsblk"
lsblk --json --bytes --output NAME,TYPE,SIZE,FSTYPE,LABEL,MOUNTPOINT,MODEL,SERIAL
echo "== mounts"
mount
