#!/usr/bin/env bash
# alive.sh GROUP [PROC [TICKS]]: status 0 if a process of the process group GROUP runs. One that is dead, and only waits
# to be collected by its parent, does not run. A group whose leader started at another time than TICKS (the 22nd field
# of its stat) has another's number, given anew after a reboot. Asks the kernel itself: a bare image has no ps.
set -euo pipefail

found=1
for file in "${2:-/proc}"/[0-9]*/stat; do
    line=
    { read -r -d '' line <"$file" || true; } 2>/dev/null # nothing, if it has ended meanwhile
    read -r -a fields <<<"${line##*) }"                  # after the name, which may hold anything
    if [ "${fields[2]:-}" != "$1" ]; then continue; fi
    if [ -n "${3:-}" ] && [ "${line%% *}" = "$1" ] && [ "${fields[19]:-}" != "$3" ]; then exit 1; fi
    if [ "${fields[0]}" != Z ]; then found=0; fi
done
exit "$found"
