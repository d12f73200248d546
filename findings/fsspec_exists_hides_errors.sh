#!/bin/bash
# fsspec: exists(), isfile() and isdir() say False when the store cannot be asked at all.
#
# A refused credential, a name server that does not answer or a bucket that nobody may list look like "there is
# nothing": a program that asks exists() before it writes, or before it resumes, begins anew over what it could not
# see. info() raises. (fsspec.spec.AbstractFileSystem catches every exception of info() there.)
# With fsspec 2026.9.0 (Python 3.11), output:
#   info: PermissionError
#   exists: False
#   isfile: False
#   isdir: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fsspec==2026.9.0
cat >"$folder/program.py" <<'PYTHON'
import sys

from fsspec import AbstractFileSystem


class Refusing(AbstractFileSystem):
    """A store that nobody may ask, as S3 with credentials that have expired."""

    def info(self, path, **kwargs):
        raise PermissionError("the credentials have expired")

    def ls(self, path, detail=True, **kwargs):
        raise PermissionError("the credentials have expired")


store = Refusing()
found = {}
for name in ("info", "exists", "isfile", "isdir"):
    try:
        found[name] = str(getattr(store, name)("bucket/checkpoint"))
    except OSError as error:
        found[name] = type(error).__name__
    print(f"{name}: {found[name]}")
sys.exit(found != {"info": "PermissionError", "exists": "False", "isfile": "False", "isdir": "False"})
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
