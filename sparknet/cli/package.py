"""``sparknet package``: the trainer as one archive, for those who call spark-submit themselves."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

HERE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "-o", "--output", type=HERE, default=Path("sparknet.zip"), show_default=True, help="The archive."
)
def package(output: Path) -> None:
    """Write the trainer as a zip that workers import: sparknet package -o sparknet.zip

    spark-submit --py-files sparknet.zip train.py then runs on machines that have the trainer's packages
    (pip install 'sparknet-ec2[train]') but not the trainer.
    """
    from sparknet.spark.bundle import bundle

    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(bundle(), output)
    click.echo(f"{output}: {output.stat().st_size:,} bytes; spark-submit --py-files {output} train.py")
