#!/usr/bin/env bash
# deadline.sh [MOMENT|never]: this node ends itself at MOMENT (2026-12-01 05:00:00 UTC), whether or not the machine that
# launched it still runs. As root. It is the first part of the user data as well, with its MOMENT filled in by sparknet-ec2,
# and runs at each boot, before anything else; a MOMENT that was given later holds from then on.
# An instance that shuts down terminates (InstanceInitiatedShutdownBehavior of the launch template), and its volumes go.
# Jobs are told two minutes before.
set -euo pipefail

root=${SPARKNET_ROOT:-}
units=$root/etc/systemd/system
given=$root/etc/sparknet/expires
if [ $# -gt 0 ]; then
    mkdir -p "${given%/*}"
    printf '%s\n' "$1" >"$given"
fi
moment='@EXPIRES@'
[ ! -s "$given" ] || moment=$(<"$given")

mkdir -p "$units"
if [ "$moment" = never ]; then
    systemctl disable --now sparknet-deadline.timer sparknet-last-call.timer 2>/dev/null || true
    exit 0
fi
before=$(date -u -d "@$(($(date -u -d "$moment" +%s) - 120))" '+%Y-%m-%d %H:%M:%S UTC')

cat >"$units/sparknet-deadline.service" <<'UNIT'
[Unit]
Description=End this node: the cluster's time is over

[Service]
Type=oneshot
# found on the path: a host that shares its system with others has a shutdown of its own there
ExecStart=/bin/sh -c 'exec shutdown -h now "the time of the cluster is over"'
UNIT

cat >"$units/sparknet-last-call.service" <<UNIT
[Unit]
Description=Tell jobs that the cluster ends

[Service]
Type=oneshot
ExecStart=-/bin/bash $root/opt/sparknet/ami/last-call.sh 120
UNIT

timer() { # NAME MOMENT DESCRIPTION
    # a moment, not a while: it stays the same at the next boot, and one that has passed meanwhile is not lost
    cat >"$units/$1.timer" <<UNIT
[Unit]
Description=$3

[Timer]
OnCalendar=$2
Persistent=true
AccuracySec=1s

[Install]
WantedBy=timers.target
UNIT
}

timer sparknet-deadline "$moment" "The cluster's end, counted from its beginning"
timer sparknet-last-call "$before" "Two minutes before the cluster's end"
systemctl daemon-reload
systemctl enable sparknet-deadline.timer sparknet-last-call.timer
# not waited for: at this point of a boot systemd is busy
systemctl restart --no-block sparknet-deadline.timer sparknet-last-call.timer
