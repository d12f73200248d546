"""Job names: the id of a job is made of the name of its program, whatever characters that has.

br oken.py       br-oken-20261130-101500
it's größe.py    it-s-grosse-20261130-101500
日本.py           job-20261130-101500
"""

from __future__ import annotations

import re
import time
import unicodedata

LONGEST = 60  # characters of the program's name: the id is also the name of a folder, and of the application
FALLBACK = "job"  # where nothing of the program's name can stay
UNSAFE = re.compile(r"[^A-Za-z0-9_.]+")


def safe(name: str) -> str:
    """``name`` as a word that no shell, URI or file system takes for anything else; never empty."""
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss"))
    plain = "".join(one for one in plain if not unicodedata.combining(one))
    return UNSAFE.sub("-", plain).strip("-.")[:LONGEST].rstrip("-.") or FALLBACK


def of_now(name: str) -> str:
    """The id of a job that starts now; another one of the same second needs ``nth``."""
    return f"{safe(name)}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"


def nth(identity: str, number: int) -> str:
    """``identity``, or the ``number``-th one of the same second."""
    return identity if number == 1 else f"{identity}-{number}"


def line(name: str) -> str:
    """``name`` as one line of text to be shown: without control characters and bytes that are no text."""
    text = name.encode("utf-8", "replace").decode()
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def is_folder(word: str) -> bool:
    """Whether a job's folder can be called so: ids of older versions have any characters."""
    return word not in ("", ".", "..") and "/" not in word and word.isprintable()
