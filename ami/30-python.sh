#!/usr/bin/env bash
# Afterwards: /opt/sparknet/venv is a Python environment with the packages of $PACKAGES.
# An environment that is complete (of the image, or of an earlier run) is left as it is.
set -euo pipefail

venv=${SPARKNET_ROOT:-}/opt/sparknet/venv

is_complete() {
    [ -x "$venv/bin/python" ] && "$venv/bin/python" - "$@" <<'PYTHON'
import sys
from importlib import metadata

for wanted in sys.argv[1:]:
    name, _, version = wanted.partition("==")
    if version and metadata.version(name).partition("+")[0] != version:
        sys.exit(f"{name} is {metadata.version(name)}, wanted {version}")
    metadata.version(name)
PYTHON
}

read -r -a wanted <<<"$PACKAGES"
if is_complete "${wanted[@]}" 2>/dev/null; then exit 0; fi

if [ ! -x "$venv/bin/python" ]; then
    if command -v uv >/dev/null 2>&1; then
        uv venv --python "$PYTHON_VERSION" "$venv"
    elif command -v "python$PYTHON_VERSION" >/dev/null 2>&1; then
        "python$PYTHON_VERSION" -m venv "$venv"
    else
        # no package mirror: uv comes from PyPI and brings its own Python
        python3 -m pip install --quiet --user uv
        python3 -m uv venv --seed --python "$PYTHON_VERSION" "$venv"
    fi
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${wanted[@]}"
is_complete "${wanted[@]}" || { echo "the environment $venv lacks packages" >&2; exit 1; }
