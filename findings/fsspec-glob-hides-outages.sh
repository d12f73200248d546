#!/bin/bash
# fsspec: a store that answers 503, 403 or "token expired" is an empty folder to glob() and find().
#
# A good guess is that glob() raises what listing raises, and that only ls() of a folder that is not there is
# "nothing". But AbstractFileSystem.walk() leaves out what it cannot list (on_error="omit"), and glob() and
# find() go through it. Whoever looks for the last checkpoint with glob() finds none during an outage, and
# begins anew. ls() raises.
#
# Exit status 0 as long as that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/packages" fsspec==2026.9.0 pyarrow==26.0.1
PYTHONPATH="$folder/packages" AWS_EC2_METADATA_DISABLED=true python3 - <<'PYTHON'
import http.server
import sys
import threading

import fsspec
import pyarrow
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

ANSWERS = {
    "SlowDown": (503, "Please reduce your request rate."),
    "AccessDenied": (403, "Access Denied"),
    "ExpiredToken": (400, "The provided token has expired."),
}


class Failing(http.server.BaseHTTPRequestHandler):
    code = ""

    def do_GET(self) -> None:
        status, message = ANSWERS[self.code]
        text = f"<Error><Code>{self.code}</Code><Message>{message}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(text)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing)
threading.Thread(target=server.serve_forever, daemon=True).start()
s3 = S3FileSystem(
    access_key="id",
    secret_key="key",
    region="us-east-1",
    endpoint_override=f"http://127.0.0.1:{server.server_port}",
    retry_strategy=AwsStandardS3RetryStrategy(max_attempts=1),
)
files = ArrowFSWrapper(s3)
print(f"fsspec {fsspec.__version__}, pyarrow {pyarrow.__version__}")
as_found = True
for Failing.code in ANSWERS:
    found = files.glob("bucket/run/round-*/manifest.json"), files.find("bucket/run")
    try:
        listed = str(files.ls("bucket/run"))
    except OSError as error:
        listed = f"OSError: {error}"
    print(f"{Failing.code}: glob {found[0]}, find {found[1]}; ls {listed[:110]}")
    as_found = as_found and found == ([], []) and listed.startswith("OSError")
sys.exit(0 if as_found else 1)
PYTHON
