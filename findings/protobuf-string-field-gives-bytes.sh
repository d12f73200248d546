#!/usr/bin/env bash
# A string field of a proto2 message gives bytes, not str, if what was parsed is no UTF-8: C++ writes such fields
# (a Latin-1 path, say), Python parses them without an error, and the type of the attribute differs from message to
# message. Setting the field to what it gave raises UnicodeDecodeError.
#
# Seen with protobuf 7.36.2 (upb):
#     b'a\xfc' bytes
#     'a\xfc' str
#     UnicodeDecodeError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check protobuf==7.36.2
cat > read.py <<'PY'
from google.protobuf import descriptor_pb2

# FileDescriptorProto is a proto2 message; field 1 is its name, a string
for content in (b"\x0a\x02a\xfc", b"\x0a\x03a\xc3\xbc"):
    message = descriptor_pb2.FileDescriptorProto.FromString(content)
    print(ascii(message.name), type(message.name).__name__)
    if isinstance(message.name, bytes):
        latin = message.name
try:
    descriptor_pb2.FileDescriptorProto(name=latin)
except UnicodeDecodeError as error:
    print(type(error).__name__)
PY
timeout 60 venv/bin/python read.py | tee seen
diff seen - <<'EXPECTED'
b'a\xfc' bytes
'a\xfc' str
UnicodeDecodeError
EXPECTED
