#!/usr/bin/env bash
# alive.sh GROUP [PROC]: status 0 if a process of the process group GROUP runs. One that is dead, and only waits to be
# collected by its parent, does not run. Asks the kernel itself: a bare image has no ps.
set -euo pipefail

for file in "${2:-/proc}"/[0-9]*/stat; do
    line=
    { read -r -d '' line <"$file" || true; } 2>/dev/null # nothing, if it has ended meanwhile
    read -r state _ group _ <<<"${line##*) }" # after the name, which may hold anything
    if [ "$group" = "$1" ] && [ "$state" != Z ]; then exit 0; fi
done
exit 1
