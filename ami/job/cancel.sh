#!/usr/bin/env bash
# cancel.sh FOLDER: afterwards the job of FOLDER does not run; its exit status is 130 unless it had one already, and
# FOLDER/cancelled says that it is not the program's own.
set -euo pipefail

folder=$1
group=$(cat "$folder/pid")
[ ! -e "$folder/exit_code" ] || exit 0

if bash "${0%/*}/runs.sh" "$folder"; then
    touch "$folder/cancelled"
    # the program first, so that it can say goodbye to Spark; whoever started it then notes how it ended
    kill -TERM -- "-$group" 2>/dev/null || true
    for _ in $(seq 50); do
        bash "${0%/*}/runs.sh" "$folder" || break
        sleep 0.1
    done
    kill -KILL -- "-$group" 2>/dev/null || true
    printf '130\n' >"$folder/exit_code"
fi
