"""App: what every HTTP request meets before moto does: credentials, the call log, faults, the lock.

/_sparknet/imds/INSTANCE/...   the metadata of an instance (models/metadata.py)
/_sparknet/...                 the control path (control_api.py)
anything else                  AWS
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.client import responses
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

from moto.ec2.exceptions import EC2ClientError
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from infra.errors import UsageError
from infra.local.calls import validation
from infra.local.calls.pricing import get_products
from infra.local.control import CONTROL_PATH
from infra.local.http import serialization
from infra.local.http.control_api import ControlApi
from infra.local.models.call_log import Call
from infra.local.models.faults import SERVER_CODES, Fault
from infra.local.simulation import Simulation

IMDS_PATH = CONTROL_PATH + "imds/"
LOGGED_BODY = 1 << 16  # characters of a call's parameters that are kept
CREDENTIAL = re.compile(r"Credential=([^/]+)/(?:[^/]+)/([^/]+)/([^/]+)/")
OLDER_CREDENTIAL = re.compile(r"AWSAccessKeyId=([^&]+)")
CODE = re.compile(rb"<Code>([\w.]+)</Code>")

StartResponse = Callable[..., Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class App:
    """The WSGI application of the server."""

    def __init__(self, cloud: Simulation, stop: Callable[[], None]) -> None:
        self._cloud = cloud
        self._control_api = ControlApi(cloud, stop)
        serialization.install()
        self._aws = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path.startswith(IMDS_PATH):
            with self._cloud.lock:
                status, text = self._cloud.metadata.answer(path.removeprefix(IMDS_PATH), environ)
            answer = Answer(status, text.encode(), (("Content-Type", "text/plain"),))
        elif path.startswith(CONTROL_PATH):
            answer = self._control(path.removeprefix(CONTROL_PATH), environ)
        else:
            answer = self._aws_call(environ)
        return _send(answer, start_response, is_head=environ["REQUEST_METHOD"] == "HEAD")

    def _control(self, path: str, environ: dict[str, Any]) -> Answer:
        if environ.get("HTTP_AUTHORIZATION") != f"Bearer {self._cloud.access_key_id}":
            return _json(403, {"error": "the control path needs `Authorization: Bearer ACCESS_KEY_ID`"})
        body = _read_body(environ)
        try:
            return _json(
                200, self._control_api.answer(environ["REQUEST_METHOD"], path, json.loads(body or b"null"))
            )
        except LookupError as error:
            return _json(404, {"error": str(error.args[0])})
        except (EC2ClientError, UsageError, ValueError, TypeError) as error:
            return _json(400, {"error": str(error)})

    def _aws_call(self, environ: dict[str, Any]) -> Answer:
        body = _read_body(environ)
        call = self._begin(environ, body)
        fault = self._cloud.faults.take(call.action, call.index)
        refusal = self._refusal(environ, call)
        if fault is not None:
            call.fault = fault.kind
        answer = refusal or self._with_fault(fault, environ, body, call)
        call.status, call.code = answer.status, _code_of(answer)
        return answer

    def _begin(self, environ: Mapping[str, Any], body: bytes) -> Call:
        key, region, service = _signature(environ)
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        action, parameters = target.rpartition(".")[2], {}
        text = body[:LOGGED_BODY].decode("utf-8", "replace")
        if target:
            parameters = _json_object(text)
        elif "Action=" in text:
            parameters = dict(parse_qsl(text, keep_blank_values=True))
            action = parameters.pop("Action", "")
            parameters.pop("Version", None)
        action = action or f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '')}"
        role = self._cloud.roles.of_key(key)
        return self._cloud.call_log.begin(service, action, region, parameters, role=role)

    def _refusal(self, environ: Mapping[str, Any], call: Call) -> Answer | None:
        """Any other key than this cloud's own, and those of roles, is a wrong one, as on AWS."""
        key, _, _ = _signature(environ)
        if key == self._cloud.access_key_id:
            return None
        if call.role:
            return self._denial(call)
        if call.service == "ec2":
            return _error(
                401, "AuthFailure", "AWS was not able to validate the provided access credentials", call
            )
        code = "InvalidClientTokenId" if key else "MissingAuthenticationToken"
        return _error(403, code, "The security token included in the request is invalid.", call)

    def _denial(self, call: Call) -> Answer | None:
        with self._cloud.lock:
            refused = self._cloud.roles.refused(call.role, call.permissions)
        if not refused:
            return None
        code = "UnauthorizedOperation" if call.service == "ec2" else "AccessDenied"
        message = f"The role {call.role} is not authorized to perform: {refused}"
        return _error(403, code, message, call)

    def _with_fault(self, fault: Fault | None, environ: dict[str, Any], body: bytes, call: Call) -> Answer:
        if fault is None:
            return self._consistent_work(environ, body, call)
        if fault.kind == "signal" and fault.before:
            fault.send()
        if fault.kind == "reset" or fault.before:
            _reset(environ)
        if fault.kind in ("error", "throttle"):
            time.sleep(fault.seconds)
            return _error(*fault.answer, call)
        if fault.kind == "delay":
            time.sleep(fault.seconds)
        answer = self._consistent_work(environ, body, call)
        if fault.kind == "signal":
            fault.send()
        if fault.kind == "lost":
            call.status, call.code = answer.status, _code_of(answer)
            _reset(environ)
        return answer

    def _consistent_work(self, environ: dict[str, Any], body: bytes, call: Call) -> Answer:
        """As soon as what the call names can be found."""
        wrong = validation.refusal(call.action, call.parameters) if call.service == "ec2" else None
        refusal = wrong or self._cloud.consistency.refusal(call.parameters)
        if refusal is not None:
            return _error(400, *refusal, call)
        answer = self._work(environ, body, call)
        if answer.status == 200:
            self._cloud.consistency.created(call.action, answer.body, self._cloud.scenario.lag_seconds)
        return answer

    def _work(self, environ: dict[str, Any], body: bytes, call: Call) -> Answer:
        if (call.service, call.action) == ("pricing", "GetProducts"):
            return _json(200, get_products(call.parameters), "application/x-amz-json-1.1")
        environ["wsgi.input"] = io.BytesIO(body)
        started: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *_: object) -> None:
            started[:] = [int(status.split()[0]), tuple(headers)]

        try:
            with self._cloud.lock:
                content = b"".join(self._aws(environ, start))
        except NotImplementedError as error:
            if refusal := validation.unknown_filter(error):
                return _error(400, *refusal, call)
            missing = f"The simulated cloud cannot do this {call.service}:{call.action}: {error}"
            return _error(400, "InvalidAction", missing, call)
        except Exception as error:
            log.exception("%s failed", call.action)
            return _error(500, "InternalError", f"the simulation failed: {error!r}; see server.log", call)
        return _as_ec2(Answer(started[0], content, started[1]))


def _signature(environ: Mapping[str, Any]) -> tuple[str, str, str]:
    """Access key, region and service of a request; presigned ones say it in the address."""
    address = unquote(environ.get("QUERY_STRING", ""))
    signed = CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", "")) or CREDENTIAL.search(address)
    if signed:
        return signed.group(1), signed.group(2), signed.group(3)
    older = OLDER_CREDENTIAL.search(address)  # of S3, as boto3 still presigns in some regions
    return (older.group(1), "", "s3") if older else ("", "", "")


def _as_ec2(answer: Answer) -> Answer:
    """EC2 answers some codes with a status of the 500s; moto knows only 400."""
    status = SERVER_CODES.get(_code_of(answer), answer.status) if answer.status >= 400 else answer.status
    return Answer(status, answer.body, answer.headers)


def _error(status: int, code: str, message: str, call: Call) -> Answer:
    """In the words of the service that was called."""
    if call.service in ("ssm", "servicequotas", "pricing"):
        return _json(status, {"__type": code, "message": message}, "application/x-amz-json-1.1")
    error = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    request = f"{call.index:032x}"
    if call.service == "s3":
        text = f"<Error>{error}<RequestId>{request}</RequestId></Error>"
    elif call.service in ("sts", "iam"):
        error = f"<Error><Type>Sender</Type>{error}</Error>"
        text = f"<ErrorResponse>{error}<RequestId>{request}</RequestId></ErrorResponse>"
    else:
        text = f"<Response><Errors><Error>{error}</Error></Errors><RequestID>{request}</RequestID></Response>"
    xml = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'
    return Answer(status, xml.encode(), (("Content-Type", "text/xml;charset=UTF-8"),))


def _json(status: int, data: object, kind: str = "application/json") -> Answer:
    return Answer(status, json.dumps(data, default=str).encode(), (("Content-Type", kind),))


def _send(answer: Answer, start_response: StartResponse, *, is_head: bool) -> Iterable[bytes]:
    """The length that a HEAD is told is that of the object, not of its own empty answer."""
    kept = [(name, value) for name, value in answer.headers if name.lower() != "content-length"]
    told = next((value for name, value in answer.headers if name.lower() == "content-length"), "")
    length = told if is_head and told else str(len(answer.body))
    phrase = responses.get(answer.status, "Unknown")
    start_response(f"{answer.status} {phrase}", [*kept, ("Content-Length", length)])
    return [answer.body]


def _read_body(environ: dict[str, Any]) -> bytes:
    """All of it; one that came in chunks, without its length, has that afterwards."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length:
        return bytes(environ["wsgi.input"].read(length))
    if not environ.pop("HTTP_TRANSFER_ENCODING", ""):
        return b""
    body = bytes(environ["wsgi.input"].read())
    environ["CONTENT_LENGTH"] = str(len(body))
    return body


def _reset(environ: Mapping[str, Any]) -> None:
    """End the connection with a reset; werkzeug takes the exception as a client that went away.

    ``close`` would wait for the files that werkzeug made of the socket, so the descriptor itself is closed.
    """
    connection: socket.socket = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())
    raise ConnectionResetError


def _code_of(answer: Answer) -> str:
    if answer.status < 400:
        return ""
    found = CODE.search(answer.body)
    if found:
        return found.group(1).decode()
    return str(_json_object(answer.body.decode("utf-8", "replace")).get("__type", ""))


def _json_object(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
