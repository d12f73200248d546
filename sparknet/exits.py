"""How a command of the trainer ends: one sentence on stderr where it fails, an exit status, no traceback."""

from __future__ import annotations

from collections.abc import Callable

import click

from sparknet.errors import Interrupted, SparkNetError, UsageError


def status_of(run: Callable[[], object], *, name: str = "Error", interrupted: str = "Interrupted.") -> int:
    """The exit status for how ``run`` ends, a command of click's outside its standalone mode.

    What went wrong is printed after ``name``; ``interrupted`` is printed for Ctrl-C. An error of the system
    (a full disk, a file that cannot be written) ends as a failed run does.
    """
    try:
        run()
    except click.ClickException as error:
        error.show()
        return UsageError.exit_status
    except SparkNetError as error:
        click.echo(f"{name}: {error}", err=True)
        return error.exit_status
    except OSError as error:
        click.echo(f"{name}: {error}", err=True)
        return SparkNetError.exit_status
    except (KeyboardInterrupt, click.Abort):
        click.echo(interrupted, err=True)
        return Interrupted.exit_status
    return 0
