#!/bin/bash
# py-lmdb: put(append=True) drops a key that is out of order, returns False and raises nothing.
#
# Loaders use append=True for sorted keys, as Caffe's LMDBs have them: eight digits, then a name. Past record
# 99,999,999 there are nine digits, which come before eight of them in byte order, and from there on every record
# is dropped. liblmdb reports MDB_KEYEXIST, which py-lmdb takes for "the key is there already".
# With lmdb 3.0.0 (Python 3.11), output:
#   put: [True, True, False, False]
#   records: 2 of 4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lmdb==3.0.0
cat >"$folder/program.py" <<'PYTHON'
import sys

import lmdb

numbers = (99_999_998, 99_999_999, 100_000_000, 100_000_001)
with lmdb.open(sys.argv[1], map_size=1 << 20) as environment:
    with environment.begin(write=True) as transaction:
        put = [transaction.put(b"%08d_x" % n, b"a record", append=True) for n in numbers]
    records = environment.stat()["entries"]
print(f"put: {put}")
print(f"records: {records} of {len(numbers)}")
sys.exit(not (put == [True, True, False, False] and records == 2))
PYTHON
"$folder/venv/bin/python" "$folder/program.py" "$folder/db"
