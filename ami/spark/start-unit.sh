#!/usr/bin/env bash
# start-unit.sh DRAFT UNIT [again]: afterwards UNIT, with the unit file DRAFT, runs, and starts at each boot.
# One that runs goes on, with all that runs on it, unless it is to start again or under DRAFT would be bound to something
# else (its line SPARKNET_BOUND_TO): another master, or other disks. Anything else waits for its next start.
set -euo pipefail

draft=$1 unit=$2 again=${3:-}
file=${SPARKNET_ROOT:-}/etc/systemd/system/$unit.service

bound_to() { grep '^Environment=SPARKNET_BOUND_TO=' "$1" 2>/dev/null || true; }

goes_on=no
if [ -z "$again" ] && [ "$(bound_to "$draft")" = "$(bound_to "$file")" ] && systemctl is-active "$unit" >/dev/null; then
    goes_on=yes
fi
if ! cmp -s "$draft" "$file"; then
    sudo install -m 644 "$draft" "$file"
    sudo systemctl daemon-reload
fi
sudo systemctl enable "$unit"
[ "$goes_on" = yes ] || sudo systemctl restart "$unit"
