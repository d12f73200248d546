"""The verb ``configure``: the file of options, written from the options themselves."""

from __future__ import annotations

from textwrap import wrap

import click

from infra.cli import options
from infra.errors import UsageError
from infra.home import home

OPENING = """\
# Options of sparknet-ec2. A line without its # stands for the option of the same name; what is said in the
# environment (SPARKNET_SPOT_PRICE) goes before this file, and what is said on the command line before both.
"""


@click.command()
@click.option("--force", is_flag=True, help="Replace the file that is there.")
@click.option("--print", "to_stdout", is_flag=True, help="Show it instead of writing it.")
def configure(force: bool, to_stdout: bool) -> None:
    """Write ~/.sparknet-ec2/config.yaml, with every option, its meaning and its default, commented out."""
    if to_stdout:
        click.echo(text(), nl=False)
        return
    file = home() / "config.yaml"
    if file.exists() and not force:
        raise UsageError(f"{file} is there already; --force replaces it.")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text(), encoding="utf-8")
    click.echo(f"{file}: take the # from the options you want, and edit them.")


def text() -> str:
    """The file: one paragraph an option."""

    return OPENING + "".join(f"\n{paragraph(one)}" for one in options.every())


def paragraph(parameter: click.Option) -> str:
    name = next(word for word in parameter.opts if word.startswith("--"))[2:]
    meaning = (parameter.help or "").replace("  [default", " [default")
    return "".join(f"# {line}\n" for line in wrap(meaning, 100)) + f"# {name}: {_example(parameter)}\n"


def _example(parameter: click.Option) -> str:
    default = parameter.default
    if parameter.multiple:
        return "[]"
    if isinstance(default, bool):
        return "false"
    if isinstance(default, int | float) or (isinstance(default, str) and default):
        return str(default)
    return '""' if not isinstance(parameter.type, click.types.FloatParamType) else "0.5"
