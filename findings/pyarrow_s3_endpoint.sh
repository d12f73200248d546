#!/bin/bash
# pyarrow: S3FileSystem(...) ignores AWS_ENDPOINT_URL, while FileSystem.from_uri("s3://...") obeys it.
#
# Both find credentials and region in AWS's environment variables, so one expects the endpoint to be found by
# both, or by neither. A program that takes its endpoint from the environment (MinIO, Ceph, a simulated S3) reads
# and writes there through from_uri, and through the constructor asks amazonaws.com, with the same credentials.
# Nothing is contacted outside of this machine: a server on the loopback address notes who asks it, and what the
# constructor would ask is read from the file system's own settings.
# With pyarrow 26.0.1 (Python 3.11), output:
#   from_uri: asked the server of AWS_ENDPOINT_URL
#   S3FileSystem(): endpoint_override=''
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1
cat >"$folder/program.py" <<'PYTHON'
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

asked = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append(self.path)
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ.update(
    AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.server_port}",
    AWS_ACCESS_KEY_ID="id",
    AWS_SECRET_ACCESS_KEY="key",
    AWS_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
)
from pyarrow.fs import FileSelector, FileSystem, S3FileSystem

files, _ = FileSystem.from_uri("s3://bucket/")
try:
    files.get_file_info(FileSelector("bucket"))
except OSError:
    pass
obeys = bool(asked)
endpoint = S3FileSystem(region="us-east-1").__reduce__()[1][0]["endpoint_override"]
print(f"from_uri: asked {'the server of AWS_ENDPOINT_URL' if obeys else 'somebody else'}")
print(f"S3FileSystem(): endpoint_override={endpoint!r}")
sys.exit(not (obeys and endpoint == ""))
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
