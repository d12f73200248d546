#!/usr/bin/env bash
# gate.sh FOLDER...: prints what all nodes of a cluster must agree on, and proves that this one can compute and write.
# Each of the EXPECTED_GPUS multiplies two matrices in the torch that the trainer will use; each FOLDER takes a file.
set -euo pipefail

venv=${SPARKNET_ROOT:-}/opt/sparknet/venv

printf 'clock=%s\n' "$(date +%s.%N)"
"$venv/bin/python" - <<'PYTHON'
import platform
from importlib import metadata

print(f"python={platform.python_version()}")
for name in ("torch", "pyspark", "numpy"):
    print(f"{name}={metadata.version(name)}")
PYTHON

if [ "${EXPECTED_GPUS:-0}" -gt 0 ]; then
    "$venv/bin/python" - "$EXPECTED_GPUS" <<'PYTHON'
import sys

import torch

count = torch.cuda.device_count()
if count != int(sys.argv[1]):
    sys.exit(f"torch {torch.__version__} sees {count} of {sys.argv[1]} GPUs; does the driver fit it?")
for index in range(count):
    ones = torch.ones(256, 256, device=f"cuda:{index}")
    if not bool((ones @ ones == 256).all()):
        sys.exit(f"GPU {index} computes wrong")
print(f"gpu={torch.cuda.get_device_name(0)}")
PYTHON
fi

for folder in "$@"; do
    probe=$folder/.gate
    head -c 65536 /dev/zero >"$probe" || { echo "$folder cannot be written to" >&2; exit 1; }
    rm -f "$probe"
done
