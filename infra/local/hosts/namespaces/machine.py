"""NamespaceMachine: the machine of one instance, through boots, reboots, stops and starts, to its removal."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from infra.local.hosts.machine import MachineFacts
from infra.local.hosts.namespaces.blocks import Block
from infra.local.hosts.namespaces.boot import REBOOT_STATUS
from infra.local.hosts.namespaces.boot_session import BootSession
from infra.local.hosts.namespaces.commands import CommandError, run
from infra.local.hosts.namespaces.disks import EBS_MODEL, STORE_MODEL, Disk

ROOT_GIB = 30  # sparse: what is not written takes no room
ROOT_FILE = "root.img"
GIB = 1 << 30
GB = 10**9

log = logging.getLogger(__name__)


class Driver(Protocol):
    """What a machine asks of the network and the root file system that all hosts share."""

    def specification(self, facts: MachineFacts, *, is_new: bool) -> dict[str, Any]:
        """The specification for ``boot.py``. Raises CommandError."""
        ...

    def environment_of(self, instance_id: str) -> dict[str, str]:
        """Of PID 1."""
        ...

    def connect(self, instance_id: str, pid: int) -> None:
        """Give a host that has come up, with its network at process ``pid``, its firewall. Raises OSError."""
        ...

    def close_firewall(self, instance_id: str) -> None:
        """No longer follow the rules of a host that is about to end."""
        ...

    def disconnect(self, instance_id: str, port: str) -> None:
        """After the last process of a host: nothing of its network is left."""
        ...


class NamespaceMachine:
    """See ``infra.local.hosts.machine.Machine``. ``start`` raises CommandError, an OSError."""

    def __init__(self, facts: MachineFacts, folder: Path, driver: Driver) -> None:
        self._facts, self._folder, self._driver = facts, folder, driver
        self._root: Block | None = None
        self._volumes: dict[str, Disk] = {}
        self._stores: list[Disk] = []
        self._lock = threading.Lock()  # of the disks and of the session they are shown to
        self._session: BootSession | None = None
        self._status: int | None = None
        self._is_wanted = False

    @property
    def answers(self) -> bool:
        session = self._session
        return session is not None and session.answers

    @property
    def exit_status(self) -> int | None:
        return self._status

    @property
    def connection(self) -> Mapping[str, object]:
        return {"root": "/", "log_in": "ssh"}

    def start(self) -> None:
        self._is_wanted, self._status = True, None
        self._folder.mkdir(parents=True, exist_ok=True)
        self._open_own_disks()
        self._boot()

    def stop(self, *, orderly: bool) -> None:
        self._is_wanted = False
        with self._lock:
            session, self._session = self._session, None
        self._driver.close_firewall(self._facts.instance_id)
        if session is not None:
            session.end(orderly=orderly)
            self._driver.disconnect(self._facts.instance_id, session.port)
        self._close_own_disks()

    def reboot(self) -> None:
        session = self._session
        if session is not None:
            session.reboot()

    def remove(self) -> None:
        for disk in self._volumes.values():
            disk.block.close()
        self._volumes.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def save(self, target: Path) -> None:
        """The disk with all that was written to it so far. Raises OSError."""
        with self._lock:
            session = self._session
        if session is not None:
            session.flush()
        _copy(self._folder / ROOT_FILE, target / ROOT_FILE)

    def attach(self, volume_id: str, folder: Path) -> None:
        size = int(json.loads((folder / "disk.json").read_text())["size_gib"])
        with self._lock:
            block = Block(folder / "disk.img", size * GIB)
            disk = Disk(
                block=block, name=self._free_name(), model=EBS_MODEL, serial=volume_id.replace("-", "")
            )
            self._volumes[volume_id] = disk
            if self._session is not None:
                self._session.show(disk)

    def detach(self, volume_id: str) -> None:
        with self._lock:
            disk = self._volumes.pop(volume_id, None)
            if disk is not None:
                if self._session is not None:
                    self._session.hide(disk)
                disk.block.close()

    def force_detach(self, volume_id: str) -> None:
        with self._lock:
            disk = self._volumes.get(volume_id)
            if disk is not None:
                disk.block.fail_io()

    def _boot(self) -> None:
        """One boot, and a thread that waits for its end."""
        environment = self._driver.environment_of(self._facts.instance_id)
        session = BootSession(self._specification(), self._folder, environment)
        try:
            self._driver.connect(self._facts.instance_id, session.pid)
            with self._lock:
                if not self._is_wanted:
                    raise CommandError("the instance was stopped while it booted")
                for disk in (*self._stores, *self._volumes.values()):
                    session.show(disk)
                self._session = session
        except OSError:
            session.end()
            self._driver.disconnect(self._facts.instance_id, session.port)
            raise
        session.start_services()
        threading.Thread(
            target=self._wait_for_end, args=(session,), name=self._facts.instance_id, daemon=True
        ).start()

    def _wait_for_end(self, session: BootSession) -> None:
        """Boot again if that is what the host ended for; all its disks are as they were."""
        status = session.wait()
        with self._lock:
            if self._session is not session:
                return  # stopped from outside
            self._session = None
        session.end()
        self._driver.disconnect(self._facts.instance_id, session.port)
        if status == REBOOT_STATUS and self._is_wanted:
            try:
                self._boot()
            except OSError:
                log.exception("%s did not boot again", self._facts.instance_id)
                status = 1
            else:
                return
        self._status = status

    def _open_own_disks(self) -> None:
        root = self._folder / ROOT_FILE
        is_new = not root.exists()
        if is_new and self._facts.image is not None:
            _copy(self._facts.image / ROOT_FILE, root)
            is_new = False
        if self._root is None:
            self._root = Block(root, ROOT_GIB * GIB)
        if is_new:
            run(
                "mkfs.ext4",
                "-q",
                "-L",
                "cloudimg-rootfs",
                "-E",
                "lazy_itable_init=1,lazy_journal_init=1",
                str(root),
            )
        for number, size in enumerate(self._facts.instance_store_gb, start=1):
            block = Block(self._folder / f"store-{number}.img", size * GB)
            serial = f"AWS{self._facts.instance_id[2:].upper()[:15]}{number:02X}"
            with self._lock:
                disk = Disk(block=block, name=self._free_name(), model=STORE_MODEL, serial=serial)
                self._stores.append(disk)

    def _close_own_disks(self) -> None:
        """What is on the instance store ends with the instance's stop; the root disk stays."""
        with self._lock:
            for disk in self._stores:
                disk.block.close()
            self._stores.clear()
            if self._root is not None:
                self._root.close()
                self._root = None
        for file in self._folder.glob("store-*.img"):
            file.unlink()

    def _free_name(self) -> str:
        taken = {disk.name for disk in (*self._stores, *self._volumes.values())}
        return next(name for number in range(1, 1000) if (name := f"nvme{number}n1") not in taken)

    def _specification(self) -> dict[str, object]:
        assert self._root is not None
        (self._folder / "root").mkdir(exist_ok=True)
        return {
            "mount_point": str(self._folder / "root"),
            "root_device": self._root.path,
            **self._driver.specification(self._facts, is_new=not (self._folder / "boot.json").exists()),
        }


def _copy(source: Path, target: Path) -> None:
    """Holes stay holes."""
    run("cp", "--sparse=always", "--reflink=auto", str(source), str(target))
