"""The server's HTTP side: the WSGI application around moto, and the control API."""
