#!/usr/bin/env bash
# The first part of the user data, with @EXPIRES@ filled in by sparknet-ec2; it runs at each boot, before anything else.
# Afterwards: this node ends itself at that moment, whether or not the machine that launched it still runs.
# An instance that shuts down terminates (InstanceInitiatedShutdownBehavior of the launch template), and its volumes go.
set -euo pipefail

units=${SPARKNET_ROOT:-}/etc/systemd/system
mkdir -p "$units"

cat >"$units/sparknet-deadline.service" <<'UNIT'
[Unit]
Description=End this node: the cluster's --max-hours are over

[Service]
Type=oneshot
# found on the path: a host that shares its system with others has a shutdown of its own there
ExecStart=/bin/sh -c 'exec shutdown -h now "the --max-hours of the cluster are over"'
UNIT

# a moment, not a while: it stays the same at the next boot, and one that has passed meanwhile is not lost
cat >"$units/sparknet-deadline.timer" <<'UNIT'
[Unit]
Description=The cluster's --max-hours, counted from its beginning

[Timer]
OnCalendar=@EXPIRES@
Persistent=true
AccuracySec=1s

[Install]
WantedBy=timers.target
UNIT

systemctl daemon-reload
systemctl enable sparknet-deadline.timer
systemctl restart --no-block sparknet-deadline.timer # not waited for: at this point of a boot systemd is busy
