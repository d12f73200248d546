#!/usr/bin/env bash
# Afterwards: /opt/sparknet/venv is a Python environment with the packages of $PACKAGES, and all that they need, as
# requirements.lock beside this file has them: nothing is installed that has another SHA-256 than it says.
# An environment that is complete (of the image, or of an earlier run) is left as it is.
set -euo pipefail

venv=${SPARKNET_ROOT:-}/opt/sparknet/venv
lock=${BASH_SOURCE[0]%/*}/requirements.lock
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

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

locked() { # NAME|NAME...: the entries of the lock of those names
    awk -v names="^($1)==" '/^[^ #]/ { chosen = $0 ~ names } chosen' "$lock"
}

others() { # NAME|NAME...: and all without those
    awk -v names="^($1)==" '/^[^ #]/ { chosen = $0 !~ names } chosen' "$lock"
}

pip() { "$venv/bin/python" -m pip "$@" --quiet --disable-pip-version-check; }

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
        # no package mirror: uv comes from PyPI and brings its own Python, whose SHA-256 it knows
        locked uv >"$scratch/uv"
        python3 -m pip install --quiet --user --require-hashes -r "$scratch/uv"
        python3 -m uv venv --seed --python "$PYTHON_VERSION" "$venv"
    fi
fi
elsewhere=uv
index=$(torch_index)
# a version that is asked for, and what runs with an older driver, are not in the lock
if [ -n "$ASKED" ]; then elsewhere+="|pyspark|py4j"; fi
if [ -n "$index" ]; then elsewhere+="|torch|triton|cuda-.*|nvidia-.*"; fi
# first what builds packages: what pip would fetch for a build by itself has no hash
locked setuptools >"$scratch/build"
others "$elsewhere" >"$scratch/all"
pip install --require-hashes -r "$scratch/build"
pip install --require-hashes --no-build-isolation -r "$scratch/all"
if [ -n "$ASKED" ]; then pip install --no-build-isolation "$ASKED"; fi
if [ -n "$index" ]; then
    for one in "${wanted[@]}"; do
        case $one in torch==*) pip install "$index" "$one" ;; esac
    done
fi
is_complete "${wanted[@]}" || { echo "the environment $venv is not complete" >&2; exit 1; }
