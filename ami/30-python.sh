#!/usr/bin/env bash
# Afterwards: /opt/sparknet/venv is a Python environment with the packages of $PACKAGES.
# An environment that is complete (of the image, or of an earlier run) is left as it is.
set -euo pipefail

venv=${SPARKNET_ROOT:-}/opt/sparknet/venv

is_complete() { # NAME[==VERSION]...: false, saying why, where one is missing or another version
    [ -x "$venv/bin/python" ] && "$venv/bin/python" - "$@" <<'PYTHON'
import sys
from importlib import metadata

for wanted in sys.argv[1:]:
    name, _, version = wanted.partition("==")
    try:
        found = metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        sys.exit(f"{name} is missing")
    if version and found != version:
        sys.exit(f"{name} is {found}, wanted {version}")
PYTHON
}

torch_index() { # the index of a torch that the NVIDIA driver runs, where it is too old for PyPI's
    local driver
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) || return 0
    if [ -n "$driver" ] && [ "${driver%%.*}" -lt "$TORCH_DRIVER" ]; then
        echo "--extra-index-url=$OLDER_TORCH_INDEX"
    fi
}

read -r -a wanted <<<"$PACKAGES"
if [ -L "$venv" ]; then # it leads to an environment that is somebody's own: looked at, never changed
    is_complete "${wanted[@]%%==*}" ${ASKED:+"$ASKED"} && exit 0
    echo "$(readlink -f "$venv") is not this node's to change: install what it lacks there" >&2
    exit 1
fi
if is_complete "${wanted[@]}" 2>/dev/null; then exit 0; fi

if [ ! -x "$venv/bin/python" ]; then
    if command -v uv >/dev/null 2>&1; then
        uv venv --seed --python "$PYTHON_VERSION" "$venv"
    elif command -v "python$PYTHON_VERSION" >/dev/null 2>&1; then
        "python$PYTHON_VERSION" -m venv "$venv"
    else
        # no package mirror: uv comes from PyPI and brings its own Python
        python3 -m pip install --quiet --user uv
        python3 -m uv venv --seed --python "$PYTHON_VERSION" "$venv"
    fi
fi
read -r -a index <<<"$(torch_index)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${index[@]}" "${wanted[@]}"
is_complete "${wanted[@]}" || { echo "the environment $venv is not complete" >&2; exit 1; }
