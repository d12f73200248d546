"""Files of private keys as ssh-keygen writes them, and an ssh agent of the test's own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSPHRASE = "correct horse"
#: How each form is made, with -N for the passphrase; rsa and ed25519 are what EC2 takes.
FORMS = {
    "openssh-ed25519": ("ed25519", ()),
    "openssh-rsa": ("rsa", ("-b", "2048")),
    "pem-rsa": ("rsa", ("-b", "2048", "-m", "PEM")),
    "pkcs8-rsa": ("rsa", ("-b", "2048", "-m", "PKCS8")),
    "openssh-ecdsa": ("ecdsa", ()),
}


def said(*words: str, stdin: bytes = b"") -> str:
    ran = subprocess.run(words, input=stdin, capture_output=True, timeout=60, check=True)
    return ran.stdout.decode(errors="replace")


def make(folder: Path, form: str, passphrase: str = "") -> Path:
    kind, options = FORMS[form]
    file = folder / f"{form}{'-encrypted' if passphrase else ''}"
    said("ssh-keygen", "-q", "-t", kind, *options, "-N", passphrase, "-C", "", "-f", str(file))
    return file


@contextmanager
def agent_at(socket: Path) -> Iterator[Path]:
    """An ssh agent without keys, at ``socket``."""
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not socket.exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        yield socket
    finally:
        process.terminate()
        process.wait(10)


def add_to_agent(file: Path, folder: Path) -> None:
    """Give the agent of the environment the key of ``file``, encrypted with PASSPHRASE or not at all."""
    ask = folder / "ask"
    ask.write_text(f"#!/bin/sh\necho '{PASSPHRASE}'\n")
    ask.chmod(0o700)
    environment = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": "none"}
    subprocess.run(
        ["ssh-add", "-q", str(file)], env=environment, timeout=30, check=True, stdin=subprocess.DEVNULL
    )
