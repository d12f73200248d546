#!/usr/bin/env bash
# Afterwards: /opt/sparknet and /var/lib/sparknet belong to the login user, the daemons' logs are rotated, and no package
# upgrade starts by itself while the cluster lives.
set -euo pipefail

root=${SPARKNET_ROOT:-}
user=$(id -un)

# cloud-init may still be at work on the first boot; it answers within minutes or not at all
if command -v cloud-init >/dev/null 2>&1; then
    timeout 300 cloud-init status --wait >/dev/null || true
fi

for folder in /opt/sparknet /opt/sparknet/conf /var/lib/sparknet /var/lib/sparknet/jobs; do
    sudo mkdir -p "$root$folder"
    sudo chown "$user" "$root$folder"
done

sudo mkdir -p "$root/etc/logrotate.d"
sed "s|@ROOT@|$root|" "${BASH_SOURCE[0]%/*}/logrotate.conf" | sudo tee "$root/etc/logrotate.d/sparknet" >/dev/null

for timer in apt-daily.timer apt-daily-upgrade.timer; do
    if [ -e "/lib/systemd/system/$timer" ] && [ -z "$root" ]; then
        sudo systemctl stop "$timer"
        sudo systemctl mask "$timer"
    fi
done

for folder in /opt/sparknet/conf /var/lib/sparknet/jobs; do
    [ -w "$root$folder" ] || { echo "$root$folder is not writable for $user" >&2; exit 1; }
done
