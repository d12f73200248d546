#!/usr/bin/env bash
# alive.sh GROUP: status 0 if a process of the process group GROUP runs. One that is dead, and only waits to be
# collected by its parent, does not run.
set -euo pipefail

ps -A -o pgid=,stat= | awk -v group="$1" '$1 == group && $2 !~ /^Z/ { found = 1 } END { exit !found }'
