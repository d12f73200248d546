#!/usr/bin/env bash
# 50-trainer.sh ZIP DIGEST: afterwards /opt/sparknet/trainer holds what is in ZIP and nothing else, and its name DIGEST.
set -euo pipefail

zip=$1 digest=$2
home=${SPARKNET_ROOT:-}/opt/sparknet
python=$home/venv/bin/python

rm -rf "$home/trainer.new"
mkdir -p "$home/trainer.new"
"$python" -m zipfile -e "$zip" "$home/trainer.new"
printf '%s\n' "$digest" >"$home/trainer.new/.digest"
rm -rf "$home/trainer"
mv "$home/trainer.new" "$home/trainer"
rm -f "$zip"

PYTHONPATH=$home/trainer "$python" -c 'import sparknet' || { echo "the trainer cannot be imported" >&2; exit 1; }
