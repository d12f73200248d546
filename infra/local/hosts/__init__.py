"""Hosts of instances: processes (``machine.py``, ``init.py``) or Linux namespaces (``namespaces/``)."""
