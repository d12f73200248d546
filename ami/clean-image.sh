#!/usr/bin/env bash
# Afterwards: nothing is left on this machine that belongs to it alone, and it may become an image: no keys, no history,
# no logs, no state of cloud-init, no deadline. It is for a machine that will be stopped next: nobody can log in any more.
set -euo pipefail

root=${SPARKNET_ROOT:-}

# what deadline.sh has put there
for unit in sparknet-deadline sparknet-last-call; do
    sudo systemctl disable --now "$unit.timer" 2>/dev/null || true
    sudo rm -f "$root/etc/systemd/system/$unit".{timer,service}
    sudo rm -f "$root/var/lib/systemd/timers/stamp-$unit.timer"
done
sudo rm -rf "$root"/etc/sparknet

sudo rm -rf "$root"/opt/sparknet/conf/* "$root"/var/lib/sparknet/jobs/* "$root"/var/lib/sparknet/jobs/.[!.]*
sudo rm -rf "$root"/var/lib/sparknet/{store,wheels,environments}
sudo rm -rf "$root"/var/lib/cloud/{instance,instances,data,sem,seed}
sudo rm -f "$root"/etc/ssh/ssh_host_*
sudo rm -f "$root"/root/.ssh/authorized_keys "$root"/root/.*_history "$HOME"/.*_history
sudo rm -rf "$root"/root/.cache "$HOME"/.cache "$HOME"/.ssh
sudo find "$root"/var/log -type f -exec truncate --size 0 {} +
sudo rm -rf "$root"/tmp/* "$root"/var/tmp/*
if [ -s "$root/etc/machine-id" ]; then sudo truncate --size 0 "$root/etc/machine-id"; fi

left=$(sudo find "$root"/opt/sparknet/conf "$root"/root/.ssh "$HOME"/.ssh -type f 2>/dev/null || true)
[ -z "$left" ] || { echo "still there: $left" >&2; exit 1; }
