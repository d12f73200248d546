#!/usr/bin/env bash
# runs.sh FOLDER: status 0 if the job of FOLDER runs, or waits for its turn. After a reboot it does not, whoever has its
# number by then.
set -euo pipefail

folder=$1
group=$(<"$folder/pid")
boot=
ticks=
if [ -e "$folder/boot" ]; then boot=$(<"$folder/boot"); fi
if [ -e "$folder/ticks" ]; then ticks=$(<"$folder/ticks"); fi
if [ -n "$boot" ] && [ "$boot" != "$(</proc/sys/kernel/random/boot_id)" ]; then exit 1; fi

# its first process is there as long as nothing unusual has happened, and all others need not be looked at
line=
{ read -r -d '' line <"/proc/$group/stat" || true; } 2>/dev/null
read -r -a fields <<<"${line##*) }"
if [ -n "$ticks" ] && [ "${fields[19]:-}" = "$ticks" ] && [ "${fields[0]}" != Z ]; then exit 0; fi
exec bash "${0%/*}/alive.sh" "$group" /proc "$ticks"
