#!/usr/bin/env bash
# last-call.sh SECONDS: this node ends in so many seconds, and all of the cluster with it. As root.
# Afterwards: who trains here has been told (sparknet/notice.py): workers hand in their rounds, the driver saves a checkpoint
# and ends. A job that goes on all the same gets SIGTERM half a minute before the end.
set -euo pipefail

seconds=$1
root=${SPARKNET_ROOT:-}
notice=$root/run/sparknet/notice
ends=$(date -u -d "@$(($(date +%s) + seconds))" +%Y-%m-%dT%H:%M:%SZ)

mkdir -p "${notice%/*}"
printf '{"action": "end", "time": "%s", "seconds": %d}\n' "$ends" "$seconds" >"$notice.new"
chmod 644 "$notice.new"
mv "$notice.new" "$notice"

running() { # the process groups of the jobs that run here
    local folder
    for folder in "$root"/var/lib/sparknet/jobs/*/; do
        if [ -e "$folder/pid" ] && [ ! -e "$folder/exit_code" ]; then cat "$folder/pid"; fi
    done
}

for ((second = 30; second < seconds; second++)); do
    [ -n "$(running)" ] || exit 0
    sleep 1
done
for group in $(running); do
    kill -TERM -- "-$group" 2>/dev/null || true
done
