#!/usr/bin/env bash
# mount-disk.sh DEVICE LABEL MOUNT_POINT FORMAT
# Afterwards: the ext4 file system LABEL on DEVICE is mounted at MOUNT_POINT, belongs to the login user, and will be
# mounted again after a reboot. With FORMAT "format" it is made first, if and only if the device is blank.
set -euo pipefail

device=$1 label=$2 mount_point=$3 format=$4
fstab=${SPARKNET_ROOT:-}/etc/fstab
user=$(id -un)

type=$(sudo blkid -o value -s TYPE "$device" || true)
if [ -z "$type" ]; then
    [ "$format" = format ] || { echo "$device has no file system" >&2; exit 1; }
    table=$(sudo blkid -o value -s PTTYPE "$device" || true)
    [ -z "$table" ] || { echo "$device has a $table partition table; it was left as it is" >&2; exit 1; }
    # lazily: a node does not wait for the inode tables of a terabyte
    sudo mkfs.ext4 -q -L "$label" -E lazy_itable_init=1,lazy_journal_init=1 "$device"
fi

sudo mkdir -p "$mount_point"
uuid=$(sudo blkid -o value -s UUID "$device")
[ -n "$uuid" ] || { echo "$device has no UUID after mkfs" >&2; exit 1; }
if ! grep -qs "^UUID=$uuid " "$fstab"; then
    # an instance store is blank after a stop: the line of what was mounted there before would be tried first
    {
        grep -sv "^UUID=[^ ]* $mount_point " "$fstab" || true
        printf 'UUID=%s %s ext4 defaults,noatime,nofail 0 2\n' "$uuid" "$mount_point"
    } | sudo tee "$fstab.new" >/dev/null
    sudo mv "$fstab.new" "$fstab"
fi
if ! mountpoint -q "$mount_point"; then sudo mount "$mount_point"; fi
sudo chown "$user" "$mount_point"

probe=$mount_point/.writable
touch "$probe" || { echo "$mount_point is not writable" >&2; exit 1; }
rm -f "$probe"
