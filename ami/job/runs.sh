#!/usr/bin/env bash
# runs.sh FOLDER: status 0 if the job of FOLDER runs, or waits for its turn. After a reboot it does not, whoever has its
# number by then.
set -euo pipefail

folder=$1
boot=$(cat "$folder/boot" 2>/dev/null || true)
if [ -n "$boot" ] && [ "$boot" != "$(cat /proc/sys/kernel/random/boot_id)" ]; then exit 1; fi
exec bash "${0%/*}/alive.sh" "$(cat "$folder/pid")" /proc "$(cat "$folder/ticks" 2>/dev/null || true)"
