"""User data: what cloud-init gets: the deadline of the cluster, and a file of the user's or our own. Pure.

Both travel as one MIME document, and compressed if that is too long for EC2; cloud-init takes either.
https://cloudinit.readthedocs.io/en/latest/explanation/format.html
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from datetime import UTC, datetime
from pathlib import Path

from infra.errors import UsageError
from infra.node import bootstrap
from infra.spec import ClusterSpec

CLOUD_CONFIG = bootstrap.AMI / "cloud-config.txt"  # a link there, so that it is part of the package
DEADLINE = bootstrap.AMI / "deadline.sh"
HEALER_KEY = bootstrap.AMI / "healer-key.sh"
HEALER_PART = b'filename="sparknet-healer"'
OWN_HEAD = b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="%b"\n\n'
OWN_BOUNDARY = re.compile(re.escape(OWN_HEAD % b"@").replace(b"@", rb"(sparknet-[0-9a-f]+)"))
MOST_BYTES = 16_384  # as EC2
MOST_UNPACKED_BYTES = 64 * MOST_BYTES
GZIP = b"\x1f\x8b"
NEVER = "never"
MOMENT = re.compile(rb"^moment='[^']*'$", re.MULTILINE)  # of deadline.sh
IS_MIME = re.compile(rb"(mime-version|content-type):", re.IGNORECASE)


def document(spec: ClusterSpec, *, expires: datetime | None) -> bytes:
    """What a node of ``spec`` gets, which ends at ``expires`` (None: never).

    Raises UsageError if the file of ``--user-data`` cannot be read, or is longer than EC2 takes.
    """
    own = _read(spec.user_data or CLOUD_CONFIG)
    if expires is None:
        return _short_enough(own, spec.user_data)
    return _with_deadline(own, moment(expires), spec.user_data)


def with_end(document: bytes, *, expires: datetime | None) -> bytes:
    """What a node gets that is made after the end has been moved to ``expires`` (None: it has none), instead
    of ``document``."""
    text = _unpacked(document, None) if document.startswith(GZIP) else document
    if expires is None and not MOMENT.search(text):
        return document
    said = moment(expires) if expires else NEVER
    if not MOMENT.search(text):
        return _with_deadline(document, said, None)
    return _packed(MOMENT.sub(b"moment='%b'" % said.encode(), text, count=1), None)


def moment(expires: datetime) -> str:
    """As ``deadline.sh`` takes it."""
    return expires.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _with_deadline(own: bytes, ends: str, file: Path | None) -> bytes:
    deadline = bootstrap.render(DEADLINE.read_text(encoding="utf-8"), {"EXPIRES": ends}).encode()
    return _packed(_multipart(deadline, own if not own.startswith(GZIP) else _unpacked(own, file)), file)


def _packed(whole: bytes, file: Path | None) -> bytes:
    packed = whole if len(whole) <= MOST_BYTES else gzip.compress(whole, mtime=0)
    return _short_enough(packed, file)


def with_healer_key(document: bytes, user: str, public_key: str) -> bytes:
    """``document``, and the key by which the healer logs in as ``user``, in place of another healer's.

    Raises UsageError if that is longer than EC2 takes.
    """
    script = bootstrap.render(HEALER_KEY.read_text(encoding="utf-8"), {"USER": user, "KEY": public_key})
    whole = _unpacked(document, None) if document.startswith(GZIP) else document
    others = [part for part in _parts(whole) if HEALER_PART not in part]
    own = _headers("text/x-shellscript", "sparknet-healer") + script.encode()
    return _packed(_joined([*others, own]), None)


def _short_enough(content: bytes, file: Path | None) -> bytes:
    if len(content) > MOST_BYTES:
        raise UsageError(
            f"--user-data {file} comes to {len(content):,} bytes, and EC2 takes {MOST_BYTES:,}: compress it "
            "with gzip -9, which cloud-init unpacks, or let it fetch what it needs (#include, curl)."
        )
    return content


def _read(file: Path) -> bytes:
    """A text, or one that gzip compressed."""
    try:
        content = file.read_bytes()
        if not content.startswith(GZIP):
            content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--user-data {file} cannot be read: {error}.") from None
    return content


def _unpacked(content: bytes, file: Path | None) -> bytes:
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        text = unpacker.decompress(content, MOST_UNPACKED_BYTES)
    except zlib.error as error:
        raise UsageError(f"--user-data {file} cannot be read: {error}.") from None
    if not unpacker.eof:
        raise UsageError(
            f"--user-data {file} is cut off, or unpacks to more than {MOST_UNPACKED_BYTES} bytes."
        )
    return text


def _multipart(deadline: bytes, own: bytes) -> bytes:
    """One MIME document. A part of type text/plain is what its first line says: cloud-init looks itself."""
    kind = b"" if IS_MIME.match(own) else _headers("text/plain", "user-data")
    return _joined([_headers("text/cloud-boothook", "sparknet-deadline") + deadline, kind + own])


def _parts(document: bytes) -> list[bytes]:
    """What ``_joined`` was given; of any other document, that as one part."""
    found = OWN_BOUNDARY.match(document)
    if found is None:
        kind = b"" if IS_MIME.match(document) else _headers("text/plain", "user-data")
        return [kind + document]
    body = document.rpartition(b"--%b--\n" % found[1])[0]
    return [part.removesuffix(b"\n") for part in body.split(b"--%b\n" % found[1])[1:]]


def _joined(parts: list[bytes]) -> bytes:
    boundary = b"sparknet-" + hashlib.sha256(parts[-1]).hexdigest()[:24].encode()
    return (
        OWN_HEAD % boundary
        + b"".join(b"--%b\n%b\n" % (boundary, part) for part in parts)
        + b"--%b--\n" % boundary
    )


def _headers(kind: str, name: str) -> bytes:
    return (
        f'Content-Type: {kind}; charset="utf-8"\nContent-Transfer-Encoding: 8bit\n'
        f'Content-Disposition: attachment; filename="{name}"\n\n'
    ).encode()
