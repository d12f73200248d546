"""The wheels of a file of requirements, on the master: what the environment lacks, and nothing else.

    wheels.py build REQUIREMENTS WHEELS PYTHON    PYTHON: that of the job's environment
    wheels.py serve WHEELS ADDRESS SECONDS        prints the port, and serves them so long

Afterwards WHEELS holds the wheels and ``lock.txt``, their names, versions and SHA-256, and last of all
``complete``. Pip resolves the requirements against the environment, fetches what is missing from where pip
and the file say, with the hashes that the index gives, and builds what has no wheel.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

OPTIONS = (
    "-i", "--index-url", "--extra-index-url", "--no-index", "-f", "--find-links", "--trusted-host", "--pre",
    "--prefer-binary", "--only-binary", "--no-binary",
)  # fmt: skip


def pip(python, *words):
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet", *words],
        check=True,
    )


def build(requirements, wheels, environment):
    if (wheels / "complete").exists():
        return
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        report, resolved = Path(scratch) / "report.json", requirements.with_name("resolved.txt")
        pip(environment, "install", "--dry-run", "--report", report, "-r", requirements)
        found = [line(one) for one in json.loads(report.read_text())["install"]]
        options = [text for text in requirements.read_text().splitlines() if text.startswith(OPTIONS)]
        if found:
            resolved.write_text("\n".join([*options, *found, ""]))
            pip(environment, "wheel", "--no-deps", "--wheel-dir", wheels, "-r", resolved)
    locked = [lock(wheel) for wheel in sorted(wheels.glob("*.whl"))]
    (wheels / "lock.txt").write_text("".join(f"{one}\n" for one in locked))
    (wheels / "complete").touch()


def line(one):
    """What pip is to fetch: by its address if that was asked for, and with its hash if there is one."""
    metadata, download = one["metadata"], one["download_info"]
    if one["is_direct"]:
        return f"{metadata['name']} @ {download['url']}"
    digest = download.get("archive_info", {}).get("hashes", {}).get("sha256")
    return f"{metadata['name']}=={metadata['version']}" + (f" --hash=sha256:{digest}" if digest else "")


def lock(wheel):
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def serve(wheels, address, seconds):
    server = ThreadingHTTPServer((address, 0), partial(Handler, directory=wheels))
    print(server.server_address[1], flush=True)
    sys.stdout.close()
    threading.Timer(float(seconds), server.shutdown).start()
    server.serve_forever()


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    if verb == "build":
        requirements, wheels, environment = words
        try:
            build(Path(requirements), Path(wheels), environment)
        except subprocess.CalledProcessError as error:
            sys.exit(error.returncode)
    else:
        serve(*words)
