"""What cloud-init does with user data, as far as a cluster needs it: scripts, files, commands.

Known of cloud-config: ``write_files`` (path, content, permissions, owner, append, encoding b64), ``bootcmd``
and ``runcmd``. Anything else is named in the log and passed over. Several parts may come as a MIME archive.
Boothooks and ``bootcmd`` run at each boot, all else at the first.
"""

from __future__ import annotations

import base64
import email
import gzip
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any

INSTANCE = Path("/var/lib/cloud/instance")
USER_DATA = INSTANCE / "user-data.txt"
FINISHED = INSTANCE / "boot-finished"
LOG = Path("/var/log/cloud-init-output.log")
BOOTHOOK = b"#cloud-boothook"
IGNORED = {"package_update", "package_upgrade"}  # nothing is installed here, as with false


def main() -> None:
    with LOG.open("ab", buffering=0) as log:
        is_first = not FINISHED.exists()
        try:
            for number, (kind, part) in enumerate(parts(), start=1):
                carry_out(kind, part, number, log, is_first=is_first)
        finally:
            FINISHED.touch()


def parts() -> list[tuple[str, bytes]]:
    """Type and content of the user data, or of what it is an archive of; boothooks first."""
    if not USER_DATA.exists():
        return []
    data = USER_DATA.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    if not data.lower().startswith((b"content-type:", b"mime-version:")):
        return [("text/plain", data)]
    message = email.message_from_bytes(data)
    found = [
        (part.get_content_type(), part.get_payload(decode=True))
        for part in message.walk()
        if not part.is_multipart()
    ]
    known = [(kind, part) for kind, part in found if isinstance(part, bytes)]
    return sorted(known, key=lambda one: not is_boothook(*one))


def is_boothook(kind: str, part: bytes) -> bool:
    return kind == "text/cloud-boothook" or part.startswith(BOOTHOOK)


def carry_out(kind: str, part: bytes, number: int, log: Any, *, is_first: bool) -> None:
    if is_boothook(kind, part):
        run_script(part.removeprefix(BOOTHOOK).lstrip(), f"boothooks/part-{number:03}", log)
    elif part.startswith(b"#!") and is_first:
        run_script(part, f"scripts/part-{number:03}", log)
    elif part.startswith(b"#cloud-config"):
        import yaml

        configure(yaml.safe_load(part) or {}, log, is_first=is_first)


def run_script(text: bytes, name: str, log: Any) -> None:
    script = INSTANCE / name
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_bytes(text)
    script.chmod(0o700)
    run([str(script)], log)


def configure(config: dict[str, Any], log: Any, *, is_first: bool) -> None:
    for words in config.pop("bootcmd", None) or []:
        run(words, log)
    files, commands = config.pop("write_files", None) or [], config.pop("runcmd", None) or []
    if not is_first:
        return
    for name in sorted(set(config) - IGNORED):
        log.write(f"{name} of the cloud-config is not known here, and was passed over\n".encode())
    for file in files:
        write(file)
    for words in commands:
        run(words, log)


def write(file: dict[str, Any]) -> None:
    path, content = Path(file["path"]), file.get("content") or ""
    encoding = str(file.get("encoding", "")).lower()
    data = base64.b64decode(content) if encoding in ("b64", "base64") else str(content).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab" if file.get("append") else "wb") as target:
        target.write(data)
    path.chmod(int(str(file.get("permissions", "0644")), 8))
    user, _, group = str(file.get("owner", "root:root")).partition(":")
    shutil.chown(path, user, group or pwd.getpwnam(user).pw_gid)


def run(words: list[Any] | str, log: Any) -> None:
    """A list is a command, a string is for a shell."""
    command = ["/bin/sh", "-c", words] if isinstance(words, str) else [str(word) for word in words]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
    except OSError as error:
        log.write(f"{command[0]}: {error.strerror}\n".encode())


if __name__ == "__main__":
    main()
