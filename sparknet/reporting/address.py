"""Where a run's live page is: an address that stays the same when its driver is started again.

A browser that is open goes on with the new driver, then, and a tunnel still leads there. It is kept, for the
user alone, in ~/.local/state/sparknet/pages (``XDG_STATE_HOME``), by where the run saves its state.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

PAGE = "SPARKNET_PAGE"
"""The environment variable that names a file in which the address is to be written, for its owner alone."""

_TOKEN_BYTES = 24


@dataclass(frozen=True, kw_only=True)
class Address:
    """``port`` of the loopback, 0 for any, and the ``token`` without which the page is not shown.

    ``metrics`` is the metrics.jsonl of the run's last driver, where there was one. ``file`` is where all
    this is kept, if anywhere. ``is_fixed`` if somebody wants that very port.
    """

    port: int
    token: str
    metrics: Path | None = None
    file: Path | None = None
    is_fixed: bool = False

    @classmethod
    def of(cls, run: str | None, port: int = 0) -> Self:
        """The address of the run that is kept at ``run``; a new one, if it has none, or is kept nowhere.

        ``port`` is a wish that comes before what is remembered.
        """
        file = _folder() / f"{hashlib.sha256(run.encode()).hexdigest()[:32]}.json" if run else None
        known = _read(file)
        return cls(
            port=port or int(known.get("port", 0)),
            token=str(known.get("token") or secrets.token_urlsafe(_TOKEN_BYTES)),
            metrics=Path(known["metrics"]) if known.get("metrics") else None,
            file=file,
            is_fixed=port > 0,
        )

    def url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}/{self.token}/"

    def remember(self, port: int, metrics: Path | None) -> None:
        """For the next driver of this run. What cannot be written is not remembered."""
        if self.file:
            values = {"port": port, "token": self.token, "metrics": str(metrics) if metrics else None}
            with suppress(OSError):
                _write(self.file, json.dumps(values))


def publish(url: str) -> bool:
    """Write ``url`` into the file that ``SPARKNET_PAGE`` names; whether there is one."""
    named = os.environ.get(PAGE)
    if not named:
        return False
    with suppress(OSError):
        _write(Path(named), f"{url}\n")
        return True
    return False


def _folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "sparknet" / "pages"


def _read(file: Path | None) -> Mapping[str, Any]:
    with suppress(OSError, ValueError):
        known = json.loads(file.read_text(encoding="utf-8")) if file else {}
        return known if isinstance(known, dict) else {}
    return {}


def _write(file: Path, text: str) -> None:
    """The file is whole at any time, and never readable by others."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        out.write(text)
    new.replace(file)
