#!/usr/bin/env bash
# settings.sh NAME VALUE...: afterwards /etc/sparknet/NAME holds VALUE, for whoever on this node looks for it. As root.
set -euo pipefail

folder=${SPARKNET_ROOT:-}/etc/sparknet
mkdir -p "$folder"
while [ $# -gt 0 ]; do
    printf '%s\n' "$2" >"$folder/$1.new"
    mv "$folder/$1.new" "$folder/$1" # whole, whenever somebody reads it
    shift 2
done
