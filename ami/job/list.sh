#!/usr/bin/env bash
# list.sh JOBS: one line a job below the folder JOBS, separated by tabs: its id, when it started, its exit status,
# "cancelled", "running", "queued" or "lost" (the machine ended under it), what its program is called, and how many
# workers it may use.
set -euo pipefail

read_from() { cat "$1" 2>/dev/null || true; }

for folder in "$1"/*/; do
    [ -e "$folder/pid" ] || continue
    if [ -e "$folder/cancelled" ] && [ -e "$folder/exit_code" ]; then
        state=cancelled
    elif [ -e "$folder/exit_code" ]; then
        state=$(cat "$folder/exit_code")
    elif ! bash "${0%/*}/runs.sh" "$folder"; then
        state=lost
    elif [ -e "$folder/started" ]; then
        state=running
    else
        state=queued
    fi
    began=$(read_from "$folder/started")
    printf '%s\t%s\t%s\t%s\t%s\n' "$(basename "$folder")" "${began:-$(read_from "$folder/submitted")}" "$state" \
        "$(read_from "$folder/program")" "$(read_from "$folder/workers")"
done
