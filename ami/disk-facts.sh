#!/usr/bin/env bash
# Prints what a node knows of its disks, for infra/node/disks.py to plan from. Changes nothing.
set -euo pipefail

root=${SPARKNET_ROOT:-}

# what is on a device: a file system, a member of a RAID or an LVM, or no more than a partition table
content() {
    local found
    found=$(sudo blkid -o value -s TYPE "$1" || true)
    [ -n "$found" ] || found=$(sudo blkid -o value -s PTTYPE "$1" || true)
    printf '%s' "$found"
}

echo "== links" # by-id name, kernel name, content, label
for link in "$root"/dev/disk/by-id/nvme-*; do
    [ -e "$link" ] || continue
    type=$(content "$link")
    label=$(sudo blkid -o value -s LABEL "$link" || true)
    device=$(readlink "$link")
    printf '%s\t%s\t%s\t%s\n' "${link##*/}" "${device##*/}" "$type" "$label"
done
echo "== lsblk"
lsblk --json --bytes --output NAME,TYPE,SIZE,FSTYPE,LABEL,MOUNTPOINT,MODEL,SERIAL
echo "== mounts"
mount
