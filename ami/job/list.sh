#!/usr/bin/env bash
# list.sh JOBS: one line a job below the folder JOBS: its id, when it started, its exit status, "running" or "lost" (the
# machine ended under it), and what its program is called, separated by tabs.
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
    started=$(cat "$folder/started" 2>/dev/null || true)
    program=$(cat "$folder/program" 2>/dev/null || true)
    printf '%s\t%s\t%s\t%s\n' "$(basename "$folder")" "$started" "$state" "$program"
done
