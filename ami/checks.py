"""Prints, as one JSON object, what this node is made of and what it can do. Nothing of it stays on the node.

    EXPECTED_GPUS=1 opt/sparknet/venv/bin/python -I checks.py facts FOLDER...
    opt/sparknet/venv/bin/python -I checks.py reach ADDRESS:PORT...
    opt/sparknet/venv/bin/python -I checks.py disks opt/sparknet/conf/spark-env.sh

It only reports; infra/node/checks.py judges. It runs in the environment it reports on, with nothing else.
"""

import errno
import hashlib
import json
import os
import platform
import runpy
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, util
from pathlib import Path

CONNECT_SECONDS = 5.0
SIZE = 256  # of the matrices: large enough for the kernels that a net uses
EBS_LINK = "nvme-Amazon_Elastic_Block_Store_"
WALK_SECONDS = 10.0
NAMED = 3  # of what fills a disk
PROBE = b"\0" * 65536


def facts(folders):
    expected = int(os.environ.get("EXPECTED_GPUS") or 0)
    return {
        "python": platform.python_version(),
        "trainer": trainer(),
        "packages": {one.name.lower(): one.version for one in metadata.distributions()},
        "cuda": cuda(),
        "driver": driver() if expected else "",
        "gpus": gpus() if expected else [],
        "folders": [folder(name) for name in folders],
    }


def trainer():
    """Twelve digits that identify the trainer's files; empty if there is none. See infra/node/bundle.py."""
    home, digest = Path(__file__).resolve().parent.parent / "trainer", hashlib.sha256()
    if not home.is_dir():
        return ""
    files = ((file.relative_to(home).as_posix(), file) for file in home.rglob("*") if file.is_file())
    for name, file in sorted(files):
        if name != ".digest" and "__pycache__" not in file.parts:
            content = file.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def cuda():
    """The CUDA that torch was built for, without the seconds that it takes to import it."""
    found = util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return ""
    version = Path(found.submodule_search_locations[0]) / "version.py"
    return str(runpy.run_path(str(version)).get("cuda") or "")


def driver():
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout.split()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return told[0] if told else ""


def gpus():
    """Each GPU that torch sees, and why it did not multiply two matrices; one row if torch itself fails."""
    try:
        import torch

        count = torch.cuda.device_count()
        return [{"name": torch.cuda.get_device_name(i), "error": product(torch, i)} for i in range(count)]
    except Exception as error:  # noqa: BLE001 - whatever keeps torch from working is what is asked for
        return [{"name": "", "error": said(error)}]


def product(torch, index):
    try:
        ones = torch.ones(SIZE, SIZE, device=f"cuda:{index}")
        return "" if bool((ones @ ones == SIZE).all()) else "computes wrong"
    except Exception as error:  # noqa: BLE001 - the same
        return said(error)


def folder(name):
    """The mount point that ``name`` is under, its EBS volume, why nothing can be written, what fills it."""
    source, point = mounted(name)
    error = write_error(Path(name))
    is_full = error in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
    return {
        "path": name,
        "mount_point": point,
        "error": error,
        "volume": volume(source),
        "filled_by": fillers(point) if is_full else "",
    }


def disks(words):
    """The folders that Spark was told to spill to, by its configuration."""
    [told] = [line for line in Path(words[0]).read_text().splitlines() if "SPARK_LOCAL_DIRS=" in line]
    return {"folders": [folder(name) for name in told.partition("=")[2].strip("'\"").split(",")]}


def mounted(name):
    """Source and mount point of the file system that ``name`` is on."""
    # mount, not /proc: a host that is a folder has mounts of its own making
    table = subprocess.run(["mount"], capture_output=True, text=True, timeout=60).stdout
    rows = [line.partition(" on ") for line in table.splitlines()]
    points = {rest.partition(" type ")[0]: source for source, _, rest in rows}
    above = [point for point in points if f"{name}/".startswith(point.rstrip("/") + "/")]
    point = max(above, key=len, default="/")
    return points.get(point, ""), point


def volume(source):
    """The EBS volume that the device is; empty for any other disk."""
    links = Path(os.environ.get("SPARKNET_ROOT") or "/", "dev/disk/by-id")
    for link in links.glob(f"{EBS_LINK}vol*"):
        if "-part" not in link.name and os.path.realpath(link) == os.path.realpath(source):
            return "vol-" + link.name.removeprefix(f"{EBS_LINK}vol")
    return ""


def fillers(point):
    """What takes most room on a file system, in words."""
    found = os.statvfs(point)
    if found.f_files and not found.f_favail:
        return "it has no inodes left: too many files"
    end = time.monotonic() + WALK_SECONDS
    sizes = {str(one): size(one, end) for one in Path(point).iterdir()}
    largest = sorted(sizes, key=sizes.get, reverse=True)[:NAMED]
    told = [f"{room(sizes[name])} in {name}" for name in largest if sizes[name] >= 1 << 20]
    rest = (found.f_blocks - found.f_bfree) * found.f_frsize - sum(sizes.values())
    if os.path.ismount(point) and rest > max(sizes.values(), default=0) and time.monotonic() < end:
        told.insert(0, f"{room(rest)} in files that are deleted and still open")
    return ", ".join(told)


def size(path, end):
    """Bytes that it takes, with all below it on the same disk, as far as they are counted until ``end``."""
    taken, device = 0, path.lstat().st_dev
    pending = [path]
    while pending and time.monotonic() < end:
        try:
            one = pending.pop()
            stat = one.lstat()
            taken += stat.st_blocks * 512
            if one.is_dir() and not one.is_symlink() and stat.st_dev == device:
                pending += one.iterdir()
        except OSError:  # it is gone meanwhile, or may not be read
            continue
    return taken


def room(taken):
    return f"{taken / (1 << 30):.1f} GiB" if taken >= 1 << 30 else f"{taken / (1 << 20):.0f} MiB"


def write_error(place):
    probe = place / f".checks-{os.getpid()}"
    try:
        with probe.open("wb") as stream:
            stream.write(PROBE)
            stream.flush()
            os.fsync(stream.fileno())  # a disk that is gone takes what only memory has to hold
        probe.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def reach(endpoints):
    with ThreadPoolExecutor(32) as pool:
        return dict(zip(endpoints, pool.map(connection_error, endpoints), strict=True))


def connection_error(endpoint):
    address, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((address, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def said(error):
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


if __name__ == "__main__":
    answer = {"facts": facts, "reach": reach, "disks": disks}[sys.argv[1]](sys.argv[2:])
    sys.stdout.write(json.dumps(answer) + "\n")
