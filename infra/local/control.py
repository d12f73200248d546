"""Calls to the control path of a running server: what AWS has no API for (scenario, faults, calls, hosts)."""

from __future__ import annotations

import http.client
import json
from typing import Any

from infra.errors import SetupError
from infra.local.home import Endpoint

CONTROL_PATH = "/_sparknet/"


def call(
    endpoint: Endpoint, method: str, path: str, body: object = None, *, timeout_seconds: float = 30.0
) -> Any:
    """The JSON answer of ``METHOD /_sparknet/path``.

    Raises SetupError if the server does not answer, or answers with an error.
    """
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=timeout_seconds)
    headers = {"Authorization": f"Bearer {endpoint.access_key_id}", "Content-Type": "application/json"}
    try:
        connection.request(
            method, CONTROL_PATH + path, json.dumps(body) if body is not None else None, headers
        )
        response = connection.getresponse()
        text = response.read().decode()
    except OSError as error:
        raise SetupError(
            f"the embedded cloud (process {endpoint.pid}, {endpoint.url}) does not answer: {error}; "
            "`sparknet-ec2 local stop` ends it"
        ) from error
    finally:
        connection.close()
    answer: Any = json.loads(text) if text else None
    if response.status >= 400:
        raise SetupError(f"the embedded cloud refused {method} {path}: {answer['error']}")
    return answer
