"""Runs a job's program in this process, as Python itself would: the file that Spark is given.

    spark-submit program.py FOLDER file PATH ARGUMENT...      with its folder first on the path of modules
    spark-submit program.py FOLDER module NAME ARGUMENT...    as python -m does, with FOLDER first on it

Spark takes the name of a file for a URI, and knows neither modules nor a folder's __main__.py. This file's
own folder, which is on the path as well, holds the trainer that came with the job.
"""

import runpy
import sys
from pathlib import Path


def run_file(path):
    """In the module ``__main__`` itself, where what is pickled for the workers is looked for."""
    main = sys.modules["__main__"].__dict__
    for name in [name for name in main if not name.startswith("__")]:
        del main[name]
    main["__file__"], main["__doc__"] = path, None
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    exec(code, main)


if __name__ == "__main__":
    _, folder, kind, program, *arguments = sys.argv
    sys.argv = [program, *arguments]
    if kind == "module":
        sys.path.insert(0, folder)
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(program).parent))
        run_file(program)
