"""``sparknet experiment``: a grid of runs compared by accuracy and steps.

sparknet experiment docs/experiments/k_and_tau.toml
"""

from __future__ import annotations

from pathlib import Path

import click

from sparknet.errors import UsageError


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for runs, table, curves and page.  [default: output/NAME of the file]",
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs at a time.")
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE", help="In place of the file's: grid.tau=[10,50]"
)
def experiment(file: Path, output: Path | None, jobs: int, changes: tuple[str, ...]) -> None:
    """Make the runs that FILE describes (TOML): every tau with every algorithm, and so on.

    All workers of a run are in one process, where weights are as on a cluster and times are not. What has
    been run is kept in --output: the same command goes on where it was stopped. It leaves results.csv,
    curves.png and report.html, with the table of workers and tau as in SparkNet's paper.
    """
    from sparknet.experiment import page
    from sparknet.experiment.results import Results
    from sparknet.experiment.study import read
    from sparknet.experiment.trial import Outcome

    study = read(file, dict(map(_change, changes)))
    results = Results(study, output or Path("output") / file.stem)
    known, due = len(results.outcomes), len(study.trials)
    if known:
        click.echo(f"{known} of {due} runs were there from before")

    def tell(outcome: Outcome) -> None:
        trial = outcome.trial
        which = f"{page.name_of(trial)}, K {trial.workers}, tau {trial.tau}, seed {trial.seed}"
        click.echo(f"{len(results.outcomes)}/{due}  {which}: {outcome.line}")

    results.complete(tell, jobs)
    results.write_table()
    click.echo(f"results.csv, curves.png and report.html are in {page.write(results).parent.resolve()}")


def _change(text: str) -> tuple[str, object]:
    from sparknet.experiment.study import value_of

    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: NAME=VALUE is needed, such as steps=200 or grid.tau=[10,50]")
    return name.strip(), value_of(value.strip())
