#!/usr/bin/env bash
# start.sh FOLDER: runs FOLDER/command in the background, detached from whoever asked.
# Afterwards: FOLDER/pid is the process group of the command and FOLDER/log gets what it says; when it ends, its status
# is in FOLDER/exit_code.
set -euo pipefail

folder=$1
cd "$folder"
[ ! -e pid ] || { echo "$folder was started before" >&2; exit 1; }
set -m # a process group of its own, so that cancel ends all of it
(
    trap '' HUP
    status=0
    bash command >log 2>&1 </dev/null || status=$?
    printf '%s\n' "$status" >exit_code.new
    mv exit_code.new exit_code
) >/dev/null 2>&1 </dev/null &
printf '%s\n' "$!" >pid
date -u +%Y-%m-%dT%H:%M:%SZ >started
