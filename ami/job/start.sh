#!/usr/bin/env bash
# start.sh FOLDER [ADDRESS [WORKERS [queue]]]: runs FOLDER/command in the background, detached from whoever asked.
# Afterwards: FOLDER/pid is the process group of the command (with ticks and boot, which tell it from a later one of that
# number), and FOLDER/log gets what it says; when it ends, its status is in FOLDER/exit_code.
# With the ADDRESS of Spark's master the job starts only if WORKERS of its workers (all: every one) are free. If they
# are not, it waits for those before it (queue), or nothing is started: their ids are printed, and the status is 75.
set -euo pipefail

folder=$1 address=${2:-} workers=${3:-all} queue=${4:-}
here=$(cd "${0%/*}" && pwd)
cd "$folder"
[ ! -e pid ] || { echo "$folder was started before" >&2; exit 1; }
printf '%s\n' "$workers" >workers

holders() { # the jobs that were here before and leave no room for this one
    [ -z "$address" ] || "${here%/ami/job}/venv/bin/python" -I -S "$here/slots.py" "$folder" "$address"
}

wait_for_turn() {
    local before='' now
    while now=$(holders) && [ -n "$now" ]; do
        [ "$now" = "$before" ] || echo "sparknet-ec2: waiting for ${now//$'\n'/, }" >>log
        before=$now
        sleep 2
    done
}

(
    flock 9 # jobs are counted one at a time
    if [ -z "$queue" ]; then
        now=$(holders)
        if [ -n "$now" ]; then
            printf '%s\n' "$now"
            exit 75
        fi
    fi
    number=$(($(cat ../.last 2>/dev/null || echo 0) + 1))
    printf '%s\n' "$number" | tee ../.last >ticket
    set -m # a process group of its own, so that cancel ends all of it
    (
        trap '' HUP
        cat /proc/sys/kernel/random/boot_id >boot
        read -r -d '' line </proc/self/stat || true
        read -r -a fields <<<"${line##*) }"
        printf '%s\n' "${fields[19]}" >ticks
        status=0
        if [ -n "$queue" ]; then wait_for_turn || status=$?; fi
        date -u +%Y-%m-%dT%H:%M:%SZ >started
        if [ "$status" = 0 ]; then bash command >>log 2>&1 </dev/null || status=$?; fi
        printf '%s\n' "$status" >exit_code.new
        mv exit_code.new exit_code
    ) >/dev/null 2>&1 </dev/null 9>&- &
    date -u +%Y-%m-%dT%H:%M:%SZ >submitted
    printf '%s\n' "$!" >pid
) 9>>../.lock
