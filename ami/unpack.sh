#!/usr/bin/env bash
# unpack.sh ZIP FOLDER: afterwards FOLDER holds what is in ZIP and nothing else, and ZIP is gone.
set -euo pipefail

zip=$1 folder=$2
python=${SPARKNET_ROOT:-}/opt/sparknet/venv/bin/python

rm -rf "$folder.new"
mkdir -p "$folder.new"
"$python" -m zipfile -e "$zip" "$folder.new"
rm -rf "$folder"
mv "$folder.new" "$folder"
rm -f "$zip"
