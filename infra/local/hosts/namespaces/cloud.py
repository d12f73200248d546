"""What hosts of namespaces ask of the simulated cloud that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol


class Instances(Protocol):
    """moto's instances, those that were terminated lately among them."""

    def __iter__(self) -> Iterator[Any]: ...

    def find(self, instance_id: str) -> Any:
        """Raises InvalidInstanceID.NotFound."""
        ...

    def share_of(self, instance_id: str) -> Mapping[str, str]:
        """Variables that say which share of this machine the host may count on."""
        ...


class Metadata(Protocol):
    """The instance metadata service."""

    @property
    def date(self) -> str:
        """The moment, for the header of an answer."""
        ...

    def answer(self, path: str, environ: Mapping[str, Any]) -> tuple[int, str]:
        """HTTP status and text for a WSGI request; ``path`` is INSTANCE/latest/..."""
        ...


class Cloud(Protocol):
    """The simulated cloud."""

    @property
    def folder(self) -> Path: ...

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held by whoever reads ``instances`` or asks ``metadata``."""
        ...

    @property
    def instances(self) -> Instances: ...

    @property
    def metadata(self) -> Metadata: ...
