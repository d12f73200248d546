#!/usr/bin/env bash
# A part of the user data, filled in by sparknet-ec2, which runs once, at the end of the first boot.
# Afterwards: the healer of the cluster, on its master, may log in to this node with a key that was made there.
set -euo pipefail

user='@USER@' key='@KEY@'
home=${SPARKNET_ROOT:-}$(getent passwd "$user" | cut -d: -f6)
[ "$home" != "${SPARKNET_ROOT:-}" ] || { echo "there is no user $user" >&2; exit 1; }

install -d -m 700 -o "$user" "$home/.ssh"
touch "$home/.ssh/authorized_keys"
grep -qxF "$key" "$home/.ssh/authorized_keys" || printf '%s\n' "$key" >>"$home/.ssh/authorized_keys"
chown "$user" "$home/.ssh/authorized_keys"
chmod 600 "$home/.ssh/authorized_keys"
