"""Node: what is done on one machine, over a connection to it; who owns the machine does not matter here.

host.py         a connection: run a command, put files, get files; one node or all at once
ssh.py          the connection by ssh
login.py        opening it: keys, known hosts, what a refusal means
command_log.py  a connection that writes down every command it runs
user_data.py    what cloud-init gets: the deadline, and cloud-config.txt or a file of the user's
bootstrap.py    what is installed, from the scripts of ami/
disks.py        the folders that Spark spills to
spark.py        Spark standalone: configuration, start, stop, readiness
checks.py       whether the node is fit to train
bundle.py       the Python packages of the project that a job needs
"""
