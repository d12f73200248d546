"""How valid files are damaged, from a seed: bytes, text, and what is compressed or has a checksum."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable
from random import Random

NUMBERS = (
    *(
        "0",
        "-1",
        "1",
        "2",
        "3",
        "0.5",
        "-0.5",
        "1e9",
        "1e38",
        "-1e38",
        "1e-45",
        "nan",
        "inf",
        "-inf",
        "65536",
    ),
    *(
        "2000000000",
        "2147483647",
        "-2147483648",
        "4294967295",
        "9223372036854775807",
        "7",
        "1000",
        "0x10",
        "08",
    ),
)
SIGNS = "abz01-{}\":. #\n\0\xff,;[]<>'\\+"

Change = Callable[[bytes, Random], bytes]


def bytes_changed(data: bytes, random: Random) -> bytes:
    """Cut short, overwritten here and there, with pieces taken out, put in or put elsewhere."""
    if not data or random.random() < 0.15:
        return data[: random.randrange(len(data) + 1)]
    damaged = bytearray(data)
    for _ in range(random.choice((1, 1, 3, 10, 60))):
        end = min(len(damaged), random.choice((64, 300, 3000, len(damaged))))  # the beginning says the rest
        if not end:
            break
        at, what = random.randrange(end), random.random()
        if what < 0.6:
            damaged[at] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
        elif what < 0.7:
            damaged[at : at + random.choice((4, 8))] = random.choice((b"\xff" * 8, bytes(8), b"\x7f" * 8))
        elif what < 0.8:
            del damaged[at : at + random.choice((1, 4, 100))]
        elif what < 0.9:
            damaged[at:at] = random.randbytes(random.choice((1, 4, 100)))
        else:
            piece = bytes(damaged[at : at + random.choice((8, 64, 512))])
            place = random.randrange(len(damaged))
            damaged[place : place + len(piece)] = piece
    return bytes(damaged)


def text_changed(data: bytes, random: Random) -> bytes:
    """Signs, numbers and words exchanged, lines doubled, left out or moved."""
    text = data.decode("latin-1")
    for _ in range(random.choice((1, 1, 2, 5))):
        what = random.random()
        if what < 0.2 and text:
            at = random.randrange(len(text))
            text = text[:at] + random.choice(("", *SIGNS)) + text[at + random.randrange(2) :]
        elif what < 0.6:
            text = _exchanged(text, r"(?<=: )-?[\d.]+", NUMBERS, random)
        elif what < 0.8:
            words = re.findall(r'"[^"\n]*"|\b[A-Z_]{3,}\b|\w+(?=:| \{)', text) or [""]
            text = _exchanged(text, r'"[^"\n]*"|\b[A-Z_]{3,}\b|\w+(?=:| \{)', words, random)
        else:
            lines = text.split("\n")
            at = random.randrange(len(lines))
            taken = lines[at : at + random.choice((1, 1, 3))]
            if random.random() < 0.5:
                del lines[at : at + len(taken)]
            place = random.randrange(len(lines) + 1)
            lines[place:place] = taken if random.random() < 0.7 else []
            text = "\n".join(lines)
    return text.encode("latin-1")


def gzip_changed(data: bytes, random: Random) -> bytes:
    """Damaged outside, or within and compressed again."""
    if random.random() < 0.5:
        return bytes_changed(data, random)
    return gzip.compress(bytes_changed(gzip.decompress(data), random), 1)


def _exchanged(text: str, pattern: str, others: tuple[str, ...] | list[str], random: Random) -> str:
    places = [found.span() for found in re.finditer(pattern, text)]
    if not places:
        return text
    start, end = random.choice(places)
    return text[:start] + random.choice(others) + text[end:]


def sealed_again(data: bytes, random: Random) -> bytes:
    """A manifest changed and then given the digest of what it is now; other files only changed."""
    if not data.startswith(b"{"):
        return bytes_changed(data, random)
    line = text_changed(data.partition(b"\n")[0], random)
    return line + b"\n" + hashlib.sha256(line.decode(errors="replace").encode()).hexdigest().encode() + b"\n"
