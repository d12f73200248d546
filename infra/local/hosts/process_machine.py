"""ProcessMachine: a host that is a folder and processes of this machine, as this user; see ``init.py``."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.local.hosts.machine import MachineFacts
from infra.local.hosts.processes import HOME_MARK, INSTANCE_MARK, Inits, descendants, end_all, marked
from infra.local.hosts.stand_ins import TOOLS

INIT = Path(__file__).with_name("init.py")
FOLDERS = (
    "bin", "dev/disk/by-id", "etc/systemd/system", "home/ubuntu", "mnt", "opt/sparknet", "root", "run", "tmp",
    "var/lib/cloud/instance", "var/log",
)  # fmt: skip
ROOT_DISK = ("etc", "home", "opt", "root", "var")  # what of a host's folder an image of it holds
OTHER_DISKS = ("instance-store",)  # kept below var


class ProcessMachine:
    """A folder as the root, an init process, and all that it starts."""

    def __init__(self, facts: MachineFacts, root: Path, runtime: Path, home: Path, inits: Inits) -> None:
        self._facts, self._root, self._home, self._inits = facts, root, home, inits
        self._socket = runtime / f"{facts.instance_id}.sock"
        self._init: subprocess.Popen[bytes] | None = None
        self._disks = 0
        self._create_files()

    @property
    def answers(self) -> bool:
        return (self._root / "run/init.pid").exists() and self._init is not None and self._init.poll() is None

    @property
    def exit_status(self) -> int | None:
        return self._init.poll() if self._init else None

    @property
    def connection(self) -> Mapping[str, object]:
        return {"root": str(self._root), "socket": str(self._socket)}

    def start(self) -> None:
        specification = self._root / "run/init.json"
        specification.write_text(json.dumps(self._specification()))
        with (self._root / "var/log/console.log").open("ab") as console:
            self._init = self._inits.start(
                [sys.executable, "-I", "-S", str(INIT), str(specification)],
                stdin=subprocess.PIPE,  # never written to: its end is how init learns that the server is gone
                stdout=console,
                stderr=console,
                cwd=self._root,
                env=self._environment(),
            )

    def stop(self, *, orderly: bool) -> None:
        if self._init is None:
            return
        if orderly and self._init.poll() is None:
            self._init.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._init.wait(10)
        self._kill()
        self._socket.unlink(missing_ok=True)
        (self._root / "run/init.pid").unlink(missing_ok=True)

    def reboot(self) -> None:
        if self._init is not None and self._init.poll() is None:
            self._init.send_signal(1)

    def remove(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    def save(self, target: Path) -> None:
        _copy_root_disk(self._root, target)

    def attach(self, volume_id: str, folder: Path) -> None:
        name = f"nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"
        self._show_disk(name, folder)

    def detach(self, volume_id: str) -> None:
        link = self._root / f"dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"
        if link.is_symlink():
            (link.parent / link.readlink()).unlink(missing_ok=True)
            link.unlink()

    def force_detach(self, volume_id: str) -> None:
        """A folder cannot fail."""

    def _kill(self) -> None:
        """Descendants first, then init, then what escaped both: found by the mark in its environment."""
        assert self._init is not None
        init = self._init
        end_all(lambda: descendants(init.pid))
        self._inits.end(init)
        end_all(lambda: marked(INSTANCE_MARK, self._facts.instance_id))
        self._inits.end_orphans()

    def _create_files(self) -> None:
        """The folder as an AMI would leave it."""
        if self._facts.image is not None:
            shutil.copytree(self._facts.image, self._root, symlinks=True, dirs_exist_ok=True)
        for name in FOLDERS:
            (self._root / name).mkdir(parents=True, exist_ok=True)
        (self._root / "tmp").chmod(0o1777)
        for name, program in TOOLS.items():
            tool = self._root / "bin" / name
            tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{program}" {name} "$@"\n')
            tool.chmod(0o755)
        environment = self._root / "opt/sparknet/venv"
        environment.unlink(missing_ok=True)
        environment.symlink_to(sys.prefix)
        (self._root / "etc/hostname").write_text(self._hostname + "\n")
        (self._root / "etc/fstab").touch()
        if self._facts.user_data is not None:
            (self._root / "var/lib/cloud/instance/user-data.txt").write_bytes(self._facts.user_data)
        for number, size in enumerate(self._facts.instance_store_gb, start=1):
            serial = f"AWS{self._facts.instance_id[2:].upper()[:15]}{number:02X}"
            folder = self._root / f"var/lib/instance-store/{serial}"
            (folder / "data").mkdir(parents=True)
            (folder / "disk.json").write_text(
                json.dumps({"model": "Amazon EC2 NVMe Instance Storage", "serial": serial, "size_gib": size})
            )
            self._show_disk(f"nvme-Amazon_EC2_NVMe_Instance_Storage_{serial}", folder)

    def _show_disk(self, name: str, folder: Path) -> None:
        self._disks += 1  # 0 is the root disk
        device = self._root / f"dev/nvme{self._disks}n1"
        device.symlink_to(folder)
        link = self._root / "dev/disk/by-id" / name
        link.symlink_to(f"../../{device.name}")

    @property
    def _hostname(self) -> str:
        return "ip-" + self._facts.private_address.replace(".", "-")

    def _specification(self) -> dict[str, object]:
        return {
            "root": str(self._root),
            "home": str(self._root / "home/ubuntu"),
            "socket": str(self._socket),
            "shell": "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh",
            "env": self._environment(),
        }

    def _environment(self) -> dict[str, str]:
        """What every command of the host starts with: of the launching shell only its tools and Java."""
        kept = {
            name: os.environ[name] for name in ("JAVA_HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ
        }
        return {
            "LANG": "C.UTF-8",
            **kept,
            "PATH": f"{self._root}/bin:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self._root / "home/ubuntu"),
            "USER": "ubuntu",
            "LOGNAME": "ubuntu",
            "SHELL": "/bin/bash",
            "TMPDIR": str(self._root / "tmp"),
            "HOSTNAME": self._hostname,
            "SPARKNET_ROOT": str(self._root),
            "SPARKNET_PRIVATE_ADDRESS": self._facts.private_address,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self._facts.metadata_url,
            INSTANCE_MARK: self._facts.instance_id,
            HOME_MARK: str(self._home),
        }


def _copy_root_disk(root: Path, target: Path) -> None:
    """Copy what is on the root disk of a host that is the folder ``root``; its own links stay inside it."""
    for name in ROOT_DISK:
        shutil.copytree(
            root / name, target / name, symlinks=True, ignore=shutil.ignore_patterns(*OTHER_DISKS)
        )
    for link in [path for path in target.rglob("*") if path.is_symlink()]:
        leads_to = link.readlink()
        if leads_to.is_relative_to(root):
            inside = target / leads_to.relative_to(root)
            link.unlink()
            link.symlink_to(os.path.relpath(inside, link.parent))
