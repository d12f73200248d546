#!/usr/bin/env bash
# follow.sh FOLDER FIRST_LINE: prints the log of a job from FIRST_LINE (counted from 1) until the job has ended.
set -euo pipefail

folder=$1 next=$2
touch "$folder/log"

runs() { bash "${0%/*}/runs.sh" "$folder"; }

is_over() {
    [ -e "$folder/exit_code" ] && return
    runs && return 1
    sleep 1 # a job that ends says how, if a moment later; one that seems lost is looked for once more
    [ -e "$folder/exit_code" ] || ! runs
}

while true; do
    over=no
    if is_over; then over=yes; fi # asked before reading: what was written until then is printed
    count=$(wc -l <"$folder/log")
    if [ "$count" -ge "$next" ]; then
        sed -n "${next},${count}p" "$folder/log"
        next=$((count + 1))
    fi
    if [ "$over" = yes ]; then
        tail -n "+$next" "$folder/log" # a last line without its newline
        exit 0
    fi
    sleep 0.2
done
