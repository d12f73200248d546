#!/usr/bin/env bash
# Python's protobuf and C++ protobuf (protoc) do not read the same text format. Python refuses "- 0.5" and the
# booleans 0x1 and 01, which C++ reads, and reads +5, 1_000 and inff, which C++ refuses: a file that one of the two
# has checked need not be a file for the other.
#
# Seen with protobuf 7.36.2 and grpcio-tools 1.85.1, value as C++ and as Python read it:
#     - 0.5     value: -0.5          refused
#     0x1       flag: true           refused
#     01        flag: true           refused
#     +5        refused              value: 5
#     1_000     refused              value: 1000
#     inff      refused              value: inf
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check protobuf==7.36.2 grpcio-tools==1.85.1
cat > m.proto <<'PROTO'
syntax = "proto2";
message M {
  optional double value = 1;
  optional bool flag = 2;
}
PROTO
venv/bin/python -m grpc_tools.protoc -I. --python_out=. m.proto
cat > compare.py <<'PY'
import subprocess
import sys

import m_pb2
from google.protobuf import text_format


def cpp(text):
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--encode=M", "m.proto"]
    ran = subprocess.run(protoc, input=text.encode(), capture_output=True, timeout=60)
    return str(m_pb2.M.FromString(ran.stdout)).strip() if ran.returncode == 0 else "refused"


def python(text):
    try:
        return str(text_format.Parse(text, m_pb2.M())).strip()
    except text_format.ParseError:
        return "refused"


for text in ("value: - 0.5", "flag: 0x1", "flag: 01", "value: +5", "value: 1_000", "value: inff"):
    print(f"{text.split(': ')[1]:9} {cpp(text):20} {python(text)}")
PY
timeout 300 venv/bin/python compare.py | tee seen
diff seen - <<'EXPECTED'
- 0.5     value: -0.5          refused
0x1       flag: true           refused
01        flag: true           refused
+5        refused              value: 5
1_000     refused              value: 1000
inff      refused              value: inf
EXPECTED
