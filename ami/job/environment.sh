#!/usr/bin/env bash
# environment.sh FOLDER [ADDRESS:PORT LOCK]: afterwards FOLDER/bin/python is a Python that has all of the cluster's
# environment, and, with an address, what the file LOCK names, from the wheels that are served there. An environment
# that is complete is left as it is.
set -euo pipefail

folder=$1 from=${2:-} lock=${3:-}
here=$(cd "${0%/*}" && pwd)
base=${here%/ami/job}/venv/bin/python

mkdir -p "${folder%/*}"
exec 9>>"$folder.lock"
flock 9
[ ! -e "$folder/complete" ] || exit 0

if [ ! -e "$folder/made" ]; then
    rm -rf "$folder"
    "$base" -m venv --without-pip "$folder"
    sites=$("$folder/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    # what is installed here goes before the cluster's own
    "$base" -c 'import site; print("\n".join(site.getsitepackages()))' >"$sites/zz-cluster.pth"
    touch "$folder/made"
fi
if [ -n "$from" ]; then
    if [ -s "$lock" ]; then
        "$base" -m pip --python "$folder/bin/python" install --quiet --disable-pip-version-check --no-index \
            --find-links "http://$from/" --trusted-host "${from%:*}" --no-deps --require-hashes -r "$lock"
    fi
    touch "$folder/complete"
fi
