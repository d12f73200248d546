"""Machine: what stands behind an instance, whatever it is made of.

processes    ``process_machine.py``, the default: needs no rights
namespaces   ``namespaces/machine.py``: needs root on Linux
none         ``NoMachine``: states only, for trying out what thousands of instances would do
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """What a machine needs to know of its instance."""

    instance_id: str
    instance_type: str
    private_address: str
    user_data: bytes | None
    metadata_url: str
    instance_store_gb: tuple[int, ...]  # sizes of the type's own disks
    image: Path | None = None  # what ``save`` of another machine wrote; None: an image of AWS


class Machine(Protocol):
    """The machine of one instance."""

    @property
    def answers(self) -> bool:
        """True once commands can be run on it."""
        ...

    @property
    def exit_status(self) -> int | None:
        """None while it runs; 0 after an orderly shutdown from inside."""
        ...

    @property
    def connection(self) -> Mapping[str, object]:
        """What ``ProcessHost.connect`` needs; empty if there is nothing to connect to."""
        ...

    def start(self) -> None: ...

    def stop(self, *, orderly: bool) -> None:
        """End every process of it; ``orderly`` gives them time."""
        ...

    def reboot(self) -> None: ...

    def remove(self) -> None:
        """Remove its files."""
        ...

    def save(self, target: Path) -> None:
        """Write what is on its root disk into the empty folder ``target``; other machines start from it."""
        ...

    def attach(self, volume_id: str, folder: Path) -> None: ...

    def detach(self, volume_id: str) -> None: ...

    def force_detach(self, volume_id: str) -> None:
        """From now on whatever is read from or written to the volume's device fails."""
        ...


class NoMachine:
    """A machine that is only a state: it answers at once and never dies by itself."""

    def __init__(self) -> None:
        self.answers = True
        self.exit_status: int | None = None
        self.connection: Mapping[str, object] = {}

    def start(self) -> None: ...

    def stop(self, *, orderly: bool) -> None: ...

    def reboot(self) -> None: ...

    def remove(self) -> None: ...

    def save(self, target: Path) -> None: ...

    def attach(self, volume_id: str, folder: Path) -> None: ...

    def detach(self, volume_id: str) -> None: ...

    def force_detach(self, volume_id: str) -> None: ...
