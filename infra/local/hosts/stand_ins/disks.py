"""mkfs, mount, umount, blkid, lsblk, findmnt, mountpoint over volumes that are folders.

A disk is a folder reached through ``$SPARKNET_ROOT/dev``: ``disk.json`` says what it is, ``filesystem.json``
is there once it was formatted, and ``data/`` is what is on it. Mounting replaces the empty mount point by a
link to ``data/``. What is mounted is listed in ``run/mounts.json``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(os.environ["SPARKNET_ROOT"])
MOUNTS = ROOT / "run/mounts.json"


class Refused(Exception):  # noqa: N818 - named for what happened
    """What the real tool would refuse; ``status`` is its exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True)
class Disk:
    """One disk of this host."""

    device: Path  # $SPARKNET_ROOT/dev/nvme1n1
    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def facts(self) -> dict[str, Any]:
        return _read(self.folder / "disk.json")

    @property
    def filesystem(self) -> dict[str, str]:
        return _read(self.folder / "filesystem.json")

    def write_filesystem(self, facts: dict[str, str]) -> None:
        (self.folder / "filesystem.json").write_text(json.dumps(facts))


def main(name: str, arguments: list[str]) -> int:
    with (ROOT / "var/log/stand-ins.log").open("a") as log:
        log.write(time.strftime("%Y-%m-%dT%H:%M:%S ") + " ".join([name, *arguments]) + "\n")
    options, words = split(arguments)
    tool = {
        "mount": mount, "umount": unmount, "blkid": identify, "lsblk": list_disks, "findmnt": find_mounts,
        "mountpoint": is_mount_point,
    }.get(name, make_filesystem)  # fmt: skip
    try:
        tool({**options, "tool": name}, words)
    except Refused as refusal:
        sys.stderr.write(f"{name}: {refusal}\n")
        return refusal.status
    return 0


VALUE_OPTIONS = {
    "-L", "-U", "-t", "-o", "-s", "-m", "-E", "-i", "-b", "-N", "-I", "-n", "-S", "-T",
    "--output", "--types", "--options", "--label", "--uuid", "--source", "--target", "--match-tag",
    "--mountpoint", "--match-types",
}  # fmt: skip
FLAGS = {  # letters that take a value in one tool and none in another
    "lsblk": {"-s", "-t", "-m", "-i", "-b", "-n", "-p", "-S", "-T"},
    "findmnt": {"-s", "-m", "-i", "-b", "-n", "-U"},
    "mount": {"-i", "-n", "-s"},
    "umount": {"-i", "-n"},
    "mkfs.xfs": {"-K"},
}


def split(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options with their values (empty for flags), and the words that are neither."""
    options: dict[str, str] = {}
    words: list[str] = []
    flags = FLAGS.get(sys.argv[1], set())
    rest = iter(arguments)
    for argument in rest:
        key, equals, value = argument.partition("=")
        if argument.startswith("--") and equals:
            options[key] = value
        elif argument in VALUE_OPTIONS - flags:
            options[argument] = next(rest, "")
        elif argument.startswith("-") and not argument.startswith("--") and len(argument) > 2:
            options.update(grouped(argument, flags, rest))
        elif argument.startswith("-"):
            options[argument] = ""
        else:
            words.append(argument)
    return options, words


def grouped(argument: str, flags: set[str], rest: Iterator[str]) -> dict[str, str]:
    """``-no TARGET`` is ``-n -o TARGET``, ``-Lspill`` is ``-L spill``."""
    options: dict[str, str] = {}
    for position, letter in enumerate(argument[1:], start=2):
        option = "-" + letter
        if option in VALUE_OPTIONS - flags:
            options[option] = argument[position:] or next(rest, "")
            break
        options[option] = ""
    return options


def make_filesystem(options: dict[str, str], words: list[str]) -> None:
    """Refuses a disk that holds a file system unless forced, as mkfs.xfs does and mkfs.ext4 asks."""
    disk = disk_at(words[0] if words else "")
    kind = options["tool"].partition(".")[2]
    if disk.filesystem and "-f" not in options and "-F" not in options:
        raise Refused(
            f"{words[0]} contains a {disk.filesystem['type']} file system already (use the force option)"
        )
    if any(entry["source"] == str(disk.device) for entry in mounted()):
        raise Refused(f"{words[0]} is mounted; will not make a filesystem here!")
    shutil.rmtree(disk.data, ignore_errors=True)
    disk.data.mkdir()
    disk.write_filesystem({"type": kind, "uuid": str(uuid.uuid4()), "label": options.get("-L", "")})


def mount(options: dict[str, str], words: list[str]) -> None:
    if "-a" in options:
        return mount_all()
    if not words:
        for entry in mounted():
            sys.stdout.write(f"{entry['source']} on {entry['target']} type {entry['fstype']} (rw)\n")
        return None
    source, target = words if len(words) == 2 else fstab_entry(words[0])
    return mount_one(source, target)


def mount_one(source: str, target: str) -> None:
    disk, point = disk_at(source), Path(target).absolute()
    if not disk.filesystem:
        raise Refused(f"{target}: wrong fs type, bad option, bad superblock on {source}", 32)
    if any(entry["target"] == str(point) for entry in mounted()):
        raise Refused(f"{target}: {source} already mounted on {target}", 32)
    if not point.is_dir() or point.is_symlink():
        raise Refused(f"{target}: mount point does not exist", 32)
    if any(point.iterdir()):
        raise Refused(
            f"{target}: not empty; here a mount point must be, because it is replaced by a link", 32
        )
    point.rmdir()
    point.symlink_to(disk.data)
    entry = {"source": str(disk.device), "target": str(point), "fstype": disk.filesystem["type"]}
    save_mounts([*mounted(), entry])


def mount_all() -> None:
    """Every line of the host's fstab that is not mounted yet; ``nofail`` lines may be missing their disk."""
    done = {entry["target"] for entry in mounted()}
    for source, target, options in fstab():
        if target in done:
            continue
        try:
            Path(target).mkdir(parents=True, exist_ok=True)
            mount_one(source, target)
        except Refused:
            if "nofail" not in options:
                raise


def unmount(_options: dict[str, str], words: list[str]) -> None:
    for word in words:
        path = str(Path(word).absolute())
        found = [entry for entry in mounted() if path in (entry["target"], entry["source"])]
        if not found:
            raise Refused(f"{word}: not mounted.", 32)
        for entry in found:
            Path(entry["target"]).unlink()
            Path(entry["target"]).mkdir()
        save_mounts([entry for entry in mounted() if entry not in found])


def identify(options: dict[str, str], words: list[str]) -> None:
    """blkid: status 2 if nothing was recognised."""
    wanted = [disk_at(word) for word in words] or disks()
    known = [disk for disk in wanted if disk.filesystem]
    if "-U" in options or "-L" in options:
        key, value = ("uuid", options["-U"]) if "-U" in options else ("label", options["-L"])
        known = [disk for disk in disks() if disk.filesystem.get(key) == value]
        sys.stdout.writelines(f"{disk.device}\n" for disk in known)
    else:
        for disk in known:
            sys.stdout.write(identity(disk, options))
    if not known:
        raise SystemExit(2)


def identity(disk: Disk, options: dict[str, str]) -> str:
    facts = {
        "LABEL": disk.filesystem["label"],
        "UUID": disk.filesystem["uuid"],
        "TYPE": disk.filesystem["type"],
    }
    tag = options.get("-s") or options.get("--match-tag")
    shown = {name: value for name, value in facts.items() if value and (not tag or name == tag)}
    form = options.get("-o") or options.get("--output")
    if form == "value":
        return "".join(f"{value}\n" for value in shown.values())
    if form == "export":
        return f"DEVNAME={disk.device}\n" + "".join(f"{name}={value}\n" for name, value in shown.items())
    return f"{disk.device}: " + " ".join(f'{name}="{value}"' for name, value in shown.items()) + "\n"


def list_disks(options: dict[str, str], words: list[str]) -> None:
    wanted = [disk_at(word) for word in words] or disks()
    rows = [row_of(disk) for disk in wanted]
    columns = (
        (options.get("-o") or options.get("--output") or "name,size,type,mountpoints").lstrip("+").lower()
    )
    chosen = list(rows[0]) if rows and columns == "all" else columns.split(",")
    if "--json" in options or "-J" in options:
        found = [{name: row.get(name) for name in chosen} for row in rows]
        sys.stdout.write(json.dumps({"blockdevices": found}, indent=3) + "\n")
        return
    if "-n" not in options and "--noheadings" not in options:
        sys.stdout.write(" ".join(name.upper() for name in chosen) + "\n")
    for row in rows:
        sys.stdout.write(" ".join(shown(row.get(name)) for name in chosen).strip() + "\n")


def shown(value: Any) -> str:
    return ",".join(filter(None, value)) if isinstance(value, list) else str(value or "")


def row_of(disk: Disk) -> dict[str, Any]:
    targets = [entry["target"] for entry in mounted() if entry["source"] == str(disk.device)]
    size = int(disk.facts["size_gib"]) << 30
    return {
        "name": disk.device.name, "kname": disk.device.name, "path": str(disk.device), "type": "disk",
        "size": size, "model": disk.facts["model"], "serial": disk.facts["serial"], "ro": False, "rm": False,
        "fstype": disk.filesystem.get("type"), "label": disk.filesystem.get("label") or None,
        "uuid": disk.filesystem.get("uuid"), "mountpoint": targets[0] if targets else None,
        "mountpoints": targets or [None],
    }  # fmt: skip


def find_mounts(options: dict[str, str], words: list[str]) -> None:
    """findmnt [-n] [-o COLUMNS] [--json] [--source DEVICE] [TARGET]; status 1 if nothing matches."""
    source = options.get("--source") or options.get("-S")
    target = options.get("--target") or options.get("-T") or options.get("--mountpoint") or options.get("-M")
    device = str(disk_at(source).device) if source else None
    wanted = {str(Path(word).absolute()) for word in (*words, *([target] if target else []))}
    found = [
        entry for entry in mounted()
        if (device is None or entry["source"] == device)
        and (not wanted or wanted & {entry["target"], entry["source"]})
    ]  # fmt: skip
    columns = (options.get("-o") or options.get("--output") or "target,source,fstype").lower().split(",")
    if not found:
        raise SystemExit(1)
    if "--json" in options or "-J" in options:
        rows = [{name: entry.get(name) for name in columns} for entry in found]
        sys.stdout.write(json.dumps({"filesystems": rows}, indent=3) + "\n")
        return
    if "-n" not in options and "--noheadings" not in options:
        sys.stdout.write(" ".join(name.upper() for name in columns) + "\n")
    for entry in found:
        sys.stdout.write(" ".join(entry.get(name, "") for name in columns) + "\n")


def is_mount_point(options: dict[str, str], words: list[str]) -> None:
    path = str(Path(words[0]).absolute())
    found = path == str(ROOT) or any(entry["target"] == path for entry in mounted())
    if "-q" not in options:
        sys.stdout.write(f"{words[0]} is {'' if found else 'not '}a mountpoint\n")
    if not found:
        raise SystemExit(32)


def disks() -> list[Disk]:
    devices = sorted(path for path in (ROOT / "dev").glob("nvme*n1") if path.is_symlink())
    return [Disk(device, device.readlink()) for device in devices]


def disk_at(name: str) -> Disk:
    """By device, by any link to it, or by ``UUID=`` or ``LABEL=``."""
    key, equals, value = name.partition("=")
    for disk in disks():
        if equals and disk.filesystem.get(key.lower()) == value.strip('"'):
            return disk
        if not equals and name and os.path.realpath(name) == os.path.realpath(disk.device):
            return disk
    raise Refused(f"{name}: no such device of this host")


def fstab() -> list[tuple[str, str, str]]:
    """(source, target below the host's root, options) of each line of the host's fstab."""
    entries = []
    for line in (ROOT / "etc/fstab").read_text().splitlines():
        fields = line.split()
        if len(fields) >= 3 and not line.lstrip().startswith("#"):
            target = fields[1] if fields[1].startswith(str(ROOT)) else f"{ROOT}{fields[1]}"
            entries.append((fields[0], target, fields[3] if len(fields) > 3 else ""))
    return entries


def fstab_entry(word: str) -> tuple[str, str]:
    for source, target, _ in fstab():
        if str(Path(word).absolute()) == target or word == source:
            return source, target
    raise Refused(f"{word}: can't find in {ROOT}/etc/fstab.")


def mounted() -> list[dict[str, str]]:
    return list(_read(MOUNTS).get("mounts", []))


def save_mounts(entries: list[dict[str, str]]) -> None:
    MOUNTS.write_text(json.dumps({"mounts": entries}))


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
