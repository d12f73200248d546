"""What a job has left so far: a list of it, and the content of those files that are asked for.

    results.py list FOLDER PATTERN...   prints a line of JSON for each
    results.py send FOLDER              stdin: a line of JSON for each file, {"root", "path", "offset"}

A job leaves what is in its folders ``output`` (SPARKNET_OUTPUT) and ``spark-events``, its ``log``, and what
of ``work``, where it runs, was not sent there as it is now. Of ``work`` not: files whose name or folder is
like a PATTERN (they may hold a secret), nor what Python has compiled. Only files and folders are sent, and
what links lead to.

    list    {"root", "path", "size", "time", "mode"}     "time" of the last change, in ns
            {"root", "path", "folder": true}             one that is empty
            {"root", "path", "left_out": "a FIFO"}
    send    a letter, four bytes of length, and that many bytes:
                F {"size", "time", "mode"} as they were when the file was opened
                D content, from the offset on      E {"digest"} of the whole file, SHA-256
                X why there is nothing to send
"""

import hashlib
import json
import os
import stat
import struct
import sys
from fnmatch import fnmatch
from pathlib import Path

ROOTS = ("output", "work", "spark-events", "log")
HEADER = struct.Struct("!cI")
CHUNK = 1 << 18
COMPILED = "__pycache__"
KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def listed(folder, patterns):
    sent = json.loads((folder / "sent.json").read_text()) if (folder / "sent.json").exists() else {}
    for root in ROOTS:
        top = folder / root
        if top.is_dir():
            known = (sent, patterns) if root == "work" else ({}, ())
            yield from Tree(root, str(folder), *known).below("", set())
        elif top.is_file():
            yield {"root": root, "path": "", **facts(top.stat())}


def facts(found):
    return {"size": found.st_size, "time": found.st_mtime_ns, "mode": found.st_mode & 0o777}


class Tree:
    """A job's folder ``root``; ``sent`` and ``patterns``: what of it is not sent back."""

    def __init__(self, root, job, sent, patterns):
        self.root, self.job, self.sent, self.patterns = root, job, sent, patterns
        self.top = os.path.join(job, root)

    def below(self, inside, above):
        """What is in the folder ``inside``; ``above``: the folders around it, by device and inode."""
        place = os.path.join(self.top, inside) if inside else self.top
        try:
            here = os.stat(place)
            entries = sorted(os.scandir(place), key=lambda one: one.name)
        except OSError:
            yield self.told(inside, left_out="it cannot be read")
            return
        if not entries and inside and self.root == "output":
            yield self.told(inside, folder=True)
        for one in entries:
            if self.root != "work" or one.name != COMPILED:
                yield from self.entry(
                    one, os.path.join(inside, one.name), above | {(here.st_dev, here.st_ino)}
                )

    def entry(self, one, path, above):
        kind, found = self.look(one, above)
        if kind:
            if path not in self.sent:
                yield self.told(path, left_out=kind)
        elif stat.S_ISDIR(found.st_mode):
            yield from self.below(path, above)
        elif not is_as_sent(one.path, found, self.sent.get(path)):
            yield self.told(path, **facts(found))

    def look(self, one, above):
        """Why an entry of a folder is not sent (empty: it is), and what it is, or what it leads to."""
        try:
            found = one.stat()
        except OSError:
            return "a link that leads nowhere", None
        if any(fnmatch(one.name, pattern) for pattern in self.patterns):
            return "it may hold a secret", found
        if stat.S_ISDIR(found.st_mode):
            if (found.st_dev, found.st_ino) in above:
                return "a link into itself", found
            if one.is_symlink() and not os.path.realpath(one.path).startswith(self.job + os.sep):
                return "a link to a folder elsewhere", found
        elif not stat.S_ISREG(found.st_mode):
            return KINDS.get(stat.S_IFMT(found.st_mode), "a device"), found
        return ("" if os.access(one.path, os.R_OK) else "it cannot be read"), found

    def told(self, path, **more):
        return {"root": self.root, "path": path, **more}


def is_as_sent(path, found, sent):
    if sent is None:
        return False
    size, time, digest = sent
    if found.st_size != size:
        return False
    return found.st_mtime_ns == time or of_file(path) == digest


def of_file(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def send(folder):
    for line in sys.stdin:
        one = json.loads(line)
        if one["root"] not in ROOTS or ".." in Path(one["path"]).parts or os.path.isabs(one["path"]):
            sys.exit(f"{line} is nothing that a job leaves")
        try:
            send_file(os.path.join(folder, one["root"], one["path"]).rstrip("/"), one["offset"])
        except OSError as error:
            frame(b"X", (error.strerror or str(error)).encode())
    sys.stdout.buffer.flush()


def send_file(path, offset):
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        frame(b"F", json.dumps(facts(found)).encode())
        digest, left = hashlib.sha256(), found.st_size
        while left > 0 and (data := file.read(min(CHUNK, left))):
            digest.update(data)
            start = max(0, offset - (found.st_size - left))
            left -= len(data)
            if start < len(data):
                frame(b"D", data[start:])
        frame(b"E", json.dumps({"digest": digest.hexdigest()}).encode())


def frame(kind, payload):
    sys.stdout.buffer.write(HEADER.pack(kind, len(payload)) + payload)


if __name__ == "__main__":
    verb, place, *patterns = sys.argv[1:]
    if verb == "list":
        for one in listed(Path(place).resolve(), patterns):
            sys.stdout.write(json.dumps(one) + "\n")
    else:
        send(Path(place).resolve())
