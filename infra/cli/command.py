"""The command itself: its verbs, loaded when named, and the one place where an error becomes a status."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module, metadata
from pathlib import Path

import click

from infra.cli import config as options_file
from infra.cli import examples, origins
from infra.errors import InfraError, Interrupted, SetupError
from infra.interrupts import interrupts_raise
from infra.loopback import go_past_proxies

#: verb -> (module, what --help says of it)
VERBS = {
    "launch": ("clusters", "Make a cluster, or bring it to another size."),
    "plan": ("clusters", "Show what launch would make, and at what price."),
    "status": ("status", "Show a cluster, or all of them, once or again and again."),
    "destroy": ("clusters", "Remove a cluster and all that belongs to it."),
    "stop": ("resize", "Stop the machines of a cluster; their volumes stay."),
    "start": ("resize", "Start them, and Spark on them."),
    "add-slaves": ("resize", "Add workers to a cluster."),
    "remove-slaves": ("resize", "Take workers from a cluster."),
    "repair": ("resize", "Put other nodes in the place of those that fail."),
    "extend": ("lifetime", "Let a cluster end later, or sooner."),
    "heal": ("heal", "Turn the healer of a cluster on or off."),
    "submit": ("submit", "Run an app, or a program of your own, on a cluster."),
    "resubmit": ("resubmit", "Run a job once more; a training goes on from what it saved."),
    "jobs": ("jobs", "List the jobs of a cluster."),
    "logs": ("jobs", "Show what a job says."),
    "results": ("jobs", "Fetch what a job has left so far."),
    "cancel": ("jobs", "End a job."),
    "login": ("nodes", "Log in to a node."),
    "ui": ("pages", "Show the live page of a job, and Spark's, at ports of this machine."),
    "run-command": ("nodes", "Run a command on the nodes."),
    "copy-file": ("nodes", "Copy a file or folder to the nodes."),
    "cost": ("status", "Show what a cluster costs, or what past ones did."),
    "doctor": ("doctor", "Look for what is wrong, here and in the account; each finding with its fix."),
    "authorize": ("doctor", "Let this machine's present address reach a cluster."),
    "gc": ("clusters", "Find what costs money and belongs to no usable cluster."),
    "configure": ("configure", "Write the file of options, with all of them in it."),
    "iam-policy": ("heal", "Print the permissions that a person, or a healer, needs."),
    "image": ("image", "Machine images with everything in place: build, list, show, delete."),
    "local": ("local", "The embedded cloud: status, start, stop, clean."),
}

HELP = """Spot GPU clusters for SparkNet: one command up, one command down.

\b
  sparknet-ec2 launch -s 2                  a master and two workers on this machine
  sparknet-ec2 submit CifarApp -- --tau 10  train on them
  sparknet-ec2 destroy                      and remove everything

--cloud aws does the same on EC2. Every option can also be set in the environment (--spot-price as
SPARKNET_SPOT_PRICE) and in a YAML file (spot-price: 0.5), ~/.sparknet-ec2/config.yaml or the one of --config.

\b
Exit status: 0 done; 2 wrong usage; 3 credentials; 4 quota; 5 no capacity; 6 set-up failed; 7 no such job, or
its machine is gone; 130 interrupted. submit and logs -f leave with the status of the job, and the last line
says whose it is: "sparknet-ec2: ..." or "JOB ended with status N".
"""


def _version() -> str:
    """Of what is installed; the copy of the code that a healer runs is not."""
    try:
        return metadata.version("sparknet-ec2")
    except metadata.PackageNotFoundError:
        return "source"


class Verbs(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = import_module(f"infra.cli.{VERBS[name][0]}")
        command: click.Command = getattr(module, name.replace("-", "_"))
        command.epilog = examples.epilog(name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"There is no verb {args[0]}.{hint}", ctx) from None

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=Verbs, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="The YAML file of options.")
@click.version_option(_version(), "--version")
@click.pass_context
def sparknet_ec2(ctx: click.Context, config: Path | None) -> None:
    ctx.obj = options_file.read(config)
    ctx.default_map = ctx.obj.default_map(VERBS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave the process with its status."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status. No traceback reaches the user."""
    go_past_proxies()
    try:
        with interrupts_raise():
            status = sparknet_ec2.main(args=arguments, prog_name="sparknet-ec2", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:  # a command that only has others, by itself
        click.echo(error.format_message())
        return 0
    except click.UsageError as error:
        place = error.ctx.command_path if error.ctx else "sparknet-ec2"
        return _say(f"{origins.told(error)} ({place} --help)", error.exit_code)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except click.Abort:
        return _say("Stopped.", 130)
    except (InfraError, Interrupted) as error:
        return _say(str(error), error.exit_status)
    except BrokenPipeError:  # `sparknet-ec2 logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _say(_of_system(error), SetupError.exit_status)
    except Exception:  # noqa: BLE001 - a defect of this program: kept for a report
        return _say(_defect(), SetupError.exit_status)
    return status if isinstance(status, int) else 0


def _say(message: str, status: int) -> int:
    with suppress(OSError):  # nobody is there to read it
        click.echo(f"sparknet-ec2: {message}", err=True)
    return status


def _of_system(error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full{place}; make room and run the same command again."
    return f"{error.strerror or error}{place}."


def _defect() -> str:
    from infra.home import home

    text = traceback.format_exc()
    try:
        home().mkdir(parents=True, exist_ok=True)
        file = home() / "crash.log"
        file.write_text(text, encoding="utf-8")
    except OSError:
        return text
    return f"This is a defect of sparknet-ec2: {text.strip().splitlines()[-1]}. Please report it with {file}."
