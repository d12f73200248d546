#!/usr/bin/env bash
# list.sh JOBS: one line a job below the folder JOBS: its id, when it started, and its exit status, "running" or
# "lost" (the machine ended under it), separated by tabs.
set -euo pipefail

for folder in "$1"/*/; do
    [ -e "$folder/pid" ] || continue
    if [ -e "$folder/exit_code" ]; then
        state=$(cat "$folder/exit_code")
    elif bash "${0%/*}/alive.sh" "$(cat "$folder/pid")"; then
        state=running
    else
        state=lost
    fi
    printf '%s\t%s\t%s\n' "$(basename "$folder")" "$(cat "$folder/started" 2>/dev/null || true)" "$state"
done
