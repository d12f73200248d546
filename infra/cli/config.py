"""The YAML file of options: ``spot-price: 0.5`` stands for ``--spot-price 0.5`` in every verb that has it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infra.errors import UsageError


def default_map(file: Path | None, verbs: Iterable[str]) -> dict[str, Any]:
    """What click looks up between the environment and an option's own default.

    Raises UsageError for a file that is missing (if it was named), or that is no mapping of options.
    """
    from infra.cli.site import home

    chosen = file or home() / "config.yaml"
    if file is None and not chosen.exists():
        return {}
    values = _read(chosen)
    return dict.fromkeys(verbs, values)


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The options of {file} cannot be read: {error.strerror}.") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{file} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content or {}, dict):
        raise UsageError(f"{file} holds no options; a line of it looks like  spot-price: 0.5")
    return {str(key).replace("-", "_"): value for key, value in (content or {}).items()}
