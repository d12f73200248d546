"""``sparknet imagenet``: ImageNet's archives made ready to train on."""

from __future__ import annotations

import click


@click.group()
def imagenet() -> None:
    """ImageNet's archives: make them ready to train on."""
