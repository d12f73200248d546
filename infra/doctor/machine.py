"""This machine: versions of what runs here, the folder of keys, and the private keys in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from infra import private_key
from infra.doctor.findings import Finding, note, ok, wrong
from infra.errors import UsageError
from infra.node import login

PACKAGE = "sparknet-ec2"
EXTRAS = ("", "ec2", "local")  # of the package: what the command itself imports
SHOWN = ("boto3", "fabric", "paramiko", "moto")


def versions() -> Iterator[Finding]:
    """Of Python and of the packages, against what this version of the command was made for."""
    for text in metadata.requires(PACKAGE) or ():
        needed = Requirement(text)
        if needed.marker and not any(needed.marker.evaluate({"extra": extra}) for extra in EXTRAS):
            continue
        try:
            found = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            yield note(
                "versions", f"{needed.name} is not installed, which some verbs need.", f"pip install '{text}'"
            )
            continue
        if not needed.specifier.contains(found, prereleases=True):
            yield wrong(
                "versions",
                f"{needed.name} is {found}, and {PACKAGE} needs {needed.specifier}.",
                f"pip install '{needed.name}{needed.specifier}'",
            )
    python = ".".join(map(str, sys.version_info[:3]))
    named = ", ".join(f"{one} {metadata.version(one)}" for one in SHOWN if _is_there(one))
    yield ok("versions", f"{PACKAGE} {metadata.version(PACKAGE)} on Python {python}, with {named}")


def folder(home: Path) -> Iterator[Finding]:
    """Whether the folder of keys can be written."""
    parent = next(one for one in (home, *home.parents) if one.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        yield wrong(
            "folder",
            f"{home} cannot be written: keys of clusters could not be kept.",
            f"chown {os.getuid()} {parent}, or set SPARKNET_EC2_HOME to another folder",
        )
        return
    yield ok("folder", f"{home} holds keys and histories of clusters")


def keys(home: Path, identity_file: Path | None) -> Iterator[Finding]:
    """Every private key that would be used: what it is, who can read it, and whether it can be opened."""
    files = sorted((home / "keys").glob("*/*.pem"))
    for file in [identity_file] if identity_file else files:
        yield _key(file)
    if not files and not identity_file:
        yield ok("keys", "no cluster's key is kept here; launch makes one for each cluster")


def _key(file: Path) -> Finding:
    try:
        private_key.require_private(file)
        login.require_usable(file)
    except UsageError as error:
        said = str(error)
        return wrong("keys", said, _cure_of(file, said), status=error.exit_status)
    found = private_key.read(file, private_key.known_passphrase())
    how = "can be read here" if found.is_open else "is opened by the ssh agent"
    return ok("keys", f"{file} {how}")


def _cure_of(file: Path, said: str) -> str:
    """The half-sentence of the error that tells what to do."""
    for word in ("run ", "name ", "puttygen ", "openssl "):
        if word in said:
            return said[said.index(word) :].rstrip(".")
    return (
        f"copy {file.name} from the machine that launched the cluster, or name another with --identity-file"
    )


def _is_there(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
