#!/usr/bin/env bash
# Spark's discovery script: the addresses of this node's GPUs, as the JSON it wants.
set -euo pipefail

addresses=$(nvidia-smi --query-gpu=index --format=csv,noheader | sed 's/.*/"&"/' | paste -sd, -)
printf '{"name": "gpu", "addresses": [%s]}\n' "$addresses"
