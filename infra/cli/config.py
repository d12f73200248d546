"""The YAML file of options: ``spot-price: 0.5`` stands for ``--spot-price 0.5`` in every verb that has it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import click

from infra.cli.origins import OptionsFile
from infra.errors import UsageError


def read(file: Path | None) -> OptionsFile:
    """``file``, or the one of the user's home, which may be missing. A blank value stands for the default.

    Raises UsageError for a file that is missing (if it was named), is no mapping, has an unknown option, one
    twice, or a value of another kind than the option takes.
    """
    from infra.home import home

    chosen = file or home() / "config.yaml"
    if file is None and not chosen.exists():
        return OptionsFile(path=chosen)
    parameters = known()
    values, lines = dict[str, Any](), dict[str, int]()
    for key, value, line in _pairs(chosen):
        if key not in parameters:
            near = difflib.get_close_matches(key, parameters, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UsageError(f"{chosen} has {key}, which is no option of sparknet-ec2 (line {line}).{hint}")
        name = str(parameters[key].name)
        if name in lines:
            raise UsageError(f"{chosen} has {key} twice, in line {lines[name]} and in line {line}.")
        lines[name] = line
        if value is not None:
            values[name] = _fitting(parameters[key], value, f"{chosen}, line {line}: {key}")
    return OptionsFile(path=chosen, values=values, lines=lines)


def known() -> dict[str, click.Option]:
    """Every option that can stand in the file, by its name there."""
    from infra.cli import options

    return {word[2:]: one for one in options.every() for word in one.opts if word.startswith("--")}


def _fitting(parameter: click.Option, value: Any, where: str) -> Any:
    """``value`` as click takes it. Raises UsageError where YAML read something that the option cannot be."""
    from infra.cli import options

    if parameter.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{where} is true or false, not {value!r}.")
        return value
    if parameter.multiple:
        parts = value if isinstance(value, list) else [value]
        return [_scalar(part, where) for part in parts]
    if parameter.name == "additional_tags" and isinstance(value, dict):
        pairs = {str(key): "" if one is None else str(_scalar(one, where)) for key, one in value.items()}
        return options.tags_as_text(pairs)
    return _scalar(value, where)


def _scalar(value: Any, where: str) -> Any:
    if isinstance(value, bool):
        word = "yes, no, true, false, on and off are truth values in YAML: put quotes around a word"
        raise UsageError(f"{where} is no truth value ({word}).")
    if isinstance(value, list | dict):
        raise UsageError(f"{where} is one value, not {value!r}.")
    return value if isinstance(value, int | float) else str(value)


def _pairs(file: Path) -> list[tuple[str, Any, int]]:
    """(name, value, line) of every option in the file."""
    import yaml

    try:
        loader = yaml.SafeLoader(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"The options of {file} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{file} is not YAML: {' '.join(str(error).split())}.") from None
    try:
        node = loader.get_single_node()
        if node is not None and node.tag == "tag:yaml.org,2002:null":
            node = None
        if node is not None and not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{file} holds no options; a line of it looks like  spot-price: 0.5")
        return [
            (
                str(key.value).replace("_", "-"),
                loader.construct_object(value, deep=True),
                key.start_mark.line + 1,
            )
            for key, value in (node.value if node else ())
        ]
    except (ValueError, yaml.YAMLError) as error:  # ValueError: a date that is none
        raise UsageError(f"{file} is not YAML: {' '.join(str(error).split())}.") from None
    finally:
        loader.dispose()
