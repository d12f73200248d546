"""Files that jobs were given, each kept once under the SHA-256 of its content, and folders made of them.

    store.py missing STORE        stdin: digests, a line each; prints those that are not there
    store.py add STORE            stdin: of each file its digest (64 letters), its size (8 bytes), its content
    store.py make STORE FOLDER    stdin: a JSON list of {"path", "digest", "mode"}; copies them to FOLDER, and
                                  writes to FOLDER/sent.json what the working folder, work, looks like

A file is there whole or not at all, so a link that breaks costs the file under way. Those that no job was
made of for a week are removed.
"""

import hashlib
import json
import os
import shutil
import struct
import sys
import tempfile
import time
from pathlib import Path

CHUNK = 1 << 20
KEPT_SECONDS = 7 * 24 * 3600.0
HEADER = struct.Struct("!64sQ")


def place(store, digest):
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        sys.exit(f"{digest!r} is no SHA-256")
    return store / digest[:2] / digest


def missing(store):
    for digest in sys.stdin.read().split():
        if not place(store, digest).is_file():
            print(digest)


def exactly(stream, size):
    data = stream.read(size)
    if len(data) < size:
        sys.exit("the files ended before their end")
    return data


def add(store):
    stream = sys.stdin.buffer
    while header := stream.read(HEADER.size):
        digest, size = HEADER.unpack(header + exactly(stream, HEADER.size - len(header)))
        add_one(place(store, digest.decode()), stream, size)


def add_one(target, stream, size):
    target.parent.mkdir(parents=True, exist_ok=True)
    found = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".new-", delete=False) as file:
        try:
            while size > 0:
                data = exactly(stream, min(size, CHUNK))
                found.update(data)
                file.write(data)
                size -= len(data)
            file.close()
            if found.hexdigest() != target.name:
                sys.exit(f"{target.name} arrived as something else")
            Path(file.name).replace(target)
        finally:
            Path(file.name).unlink(missing_ok=True)


def make(store, folder):
    sent = {}
    for one in json.load(sys.stdin):
        source, target = place(store, one["digest"]), folder / one["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        os.utime(source)  # it is in use
        shutil.copyfile(source, target)
        target.chmod(one["mode"])
        if target.is_relative_to(folder / "work"):
            found = target.stat()
            sent[str(target.relative_to(folder / "work"))] = [found.st_size, found.st_mtime_ns, one["digest"]]
    (folder / "sent.json").write_text(json.dumps(sent))
    forget(store)


def forget(store):
    for file in store.glob("*/*"):
        if time.time() - file.stat().st_mtime > KEPT_SECONDS:
            file.unlink(missing_ok=True)


if __name__ == "__main__":
    verb, *places = sys.argv[1:]
    {"missing": missing, "add": add, "make": make}[verb](*map(Path, places))
