"""``sparknet-ec2``: the only part of ``infra`` that talks to a person.

    command.py    the command, its verbs by name, how it ends
    options.py    every option once, and the ClusterSpec made of them
    config.py     the file they can stand in
    target.py     which cloud is meant, and how to reach it
    progress.py   how events look while they happen
    format.py     how tables and the progress of a job look
    clusters.py   launch, plan, status, destroy, gc, cost
    resize.py     add-slaves, remove-slaves, repair, stop, start
    heal.py       heal, iam-policy
    healer.py     the healer's own program, on the master
    jobs.py       submit, jobs, logs, cancel
    nodes.py      login, run-command, copy-file
    pages.py      ui
    image.py      image build, list, show, delete
    local.py      the embedded cloud itself
    configure.py  configure

Nothing here is imported before it is needed: ``--help`` answers at once.
"""

from infra.cli.command import main

__all__ = ["main"]
