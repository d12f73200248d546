"""The YAML file of options: ``spot-price: 0.5`` stands for ``--spot-price 0.5`` in every verb that has it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infra.errors import UsageError


def default_map(file: Path | None, verbs: Iterable[str]) -> dict[str, Any]:
    """What click looks up between the environment and an option's own default.

    Raises UsageError for a file that is missing (if it was named), is no mapping, or has an unknown option.
    """
    from infra.home import home

    chosen = file or home() / "config.yaml"
    if file is None and not chosen.exists():
        return {}
    values, parameters = _read(chosen), known()
    for key in values:
        if key not in parameters:
            near = difflib.get_close_matches(key, parameters, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UsageError(f"{chosen} has {key}, which is no option of sparknet-ec2.{hint}")
    chosen_values = {parameters[key]: value for key, value in values.items()}
    return dict.fromkeys(verbs, chosen_values)


def known() -> dict[str, str]:
    """Every option that can stand in the file: its name there, and the parameter it sets."""
    from infra.cli import options

    return {word[2:]: str(one.name) for one in options.every() for word in one.opts if word.startswith("--")}


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
    return {str(key).replace("_", "-"): value for key, value in (content or {}).items()}
