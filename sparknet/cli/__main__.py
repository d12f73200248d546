"""``python -m sparknet.cli``: the ``sparknet`` command."""

from sparknet.cli import main

main()
