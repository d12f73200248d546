#!/usr/bin/env bash
# progress.sh JOBS: one line for each job below the folder JOBS that runs: its id, when it started, and what its
# progress.json says (nothing before the end of its first round), separated by tabs.
set -euo pipefail

for folder in "$1"/*/; do
    [ -e "$folder/started" ] && [ ! -e "$folder/exit_code" ] || continue
    bash "${0%/*}/runs.sh" "$folder" || continue
    progress=$(tr -d '\n\t' 2>/dev/null <"$folder/progress.json" || true)
    printf '%s\t%s\t%s\n' "$(basename "$folder")" "$(cat "$folder/started")" "$progress"
done
