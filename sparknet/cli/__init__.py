"""The ``sparknet`` command.

    sparknet caffe train --solver lenet_solver.prototxt
    sparknet db create photos photos_lmdb --size 256
    sparknet package -o sparknet.zip
    sparknet imagenet prepare ILSVRC2012_img_train.tar --output s3://bucket/imagenet
    sparknet experiment docs/experiments/k_and_tau.toml
    sparknet plan --megabytes 244 --step-time 2s --bandwidth 1gbit --workers 4..1024

Exit status: 2 for input that cannot be used, 3 for data that is missing or broken, 7 for a run that
failed, 130 for one that was interrupted.
"""

from __future__ import annotations

import functools
import sys

import click

from sparknet.cli.caffe import caffe
from sparknet.cli.db import db
from sparknet.cli.experiment import experiment
from sparknet.cli.imagenet import imagenet
from sparknet.cli.package import package
from sparknet.cli.plan import plan
from sparknet.exits import status_of

__all__ = ["cli", "main"]


def main() -> None:
    """Run the command, and leave with one sentence and a status where it cannot."""
    run = functools.partial(cli, standalone_mode=False)
    status = status_of(run, name="sparknet", interrupted="sparknet: interrupted")
    if status:
        sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sparknet-ec2", prog_name="sparknet")
def cli() -> None:
    """Train and look at nets on this machine, prepare data for them, plan runs on many, and compare some."""


cli.add_command(caffe)
cli.add_command(db)
cli.add_command(experiment)
cli.add_command(imagenet)
cli.add_command(package)
cli.add_command(plan)
