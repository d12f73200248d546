"""Hosts of instances: processes (``process_machine.py``, ``init.py``) or namespaces (``namespaces/``)."""
