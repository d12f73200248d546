"""Region: one region of AWS, or of anything that speaks its API, as this project calls it.

    region = Region("us-east-1")                                  # AWS, with the credentials found by boto3
    region = Region("us-east-1", endpoint_url=url, keys=(id, secret))    # the embedded cloud

Every call passes through ``call``: what passes by itself (throttling, a lost answer, a server's fault) is
made again with jitter until a deadline, and shown while it happens; the rest becomes an exception of
``infra.errors``. An interrupt never falls between a request and its answer.
"""

from __future__ import annotations

import difflib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

from infra.ec2 import credentials
from infra.ec2.error_codes import explain, is_retryable
from infra.errors import DeadlineExceeded, UsageError
from infra.events import Emit, Retrying, ignore
from infra.interrupts import interrupts_held
from infra.loopback import is_loopback

CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60
RETRY_SECONDS = 120.0  # the deadline of one call with all its repetitions
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 15.0

LISTED_SECONDS = 10.0  # until a describe call shows what was made a moment ago
CLOCKS_AGREE = timedelta(seconds=3)  # a date in a header is cut off to the second, and was on its way
PARTITIONS = ("aws", "aws-cn", "aws-us-gov")

Answer = dict[str, Any]


class ApiError(Exception):
    """An error answer of the API: its ``code`` and ``message``; private to ``infra.ec2``."""

    def __init__(self, code: str, message: str, operation: str) -> None:
        self.code, self.message, self.operation = code, message, operation
        super().__init__(f"{code}: {message}")


class Region:
    """The clients of one region."""

    def __init__(
        self,
        name: str,
        *,
        endpoint_url: str | None = None,
        keys: tuple[str, str] | None = None,
        emit: Emit = ignore,
        retry_seconds: float = RETRY_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.endpoint_url = endpoint_url
        self.emit = emit
        self.retry_seconds = retry_seconds
        self.sleep = sleep
        self._keys = keys
        self._clients: dict[str, Any] = {}
        self._others: list[Region] = []
        self._making = threading.Lock()
        self._ahead: timedelta | None = None  # the cloud's clock minus this machine's

    def close(self) -> None:
        """Close the connections of all clients."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        for other in self._others:
            other.close()

    def at(self, name: str, *, retry_seconds: float | None = None) -> Region:
        """The same cloud, another region, perhaps with less patience; closed with this one."""
        other = Region(
            name,
            endpoint_url=self.endpoint_url,
            keys=self._keys,
            emit=ignore if retry_seconds else self.emit,
            retry_seconds=retry_seconds or self.retry_seconds,
            sleep=self.sleep,
        )
        self._others.append(other)
        return other

    def now(self) -> datetime:
        """The moment by the clock of the cloud, as its last answer told it: this machine's may be wrong."""
        if self._ahead is None:
            self.read("describe_regions")  # whose answer tells
        return datetime.now(UTC) + (self._ahead or timedelta())

    def require_credentials(self) -> None:
        """Raises CredentialsError if there are none, before anything is asked or promised.

        Where only the network fails on the way to them, the first call says so, after its repetitions.
        """
        from botocore import exceptions as boto

        if self._keys:
            return
        try:
            self._require_credentials()
        except ApiError as error:
            raise explain(error.code, error.message, error.operation) from None
        except (boto.HTTPClientError, boto.ConnectionError):
            return

    def credentials_origin(self) -> credentials.Origin:
        """Where the credentials come from. To be called once a call has been answered."""
        if self._keys:
            return credentials.Origin(method="the embedded cloud", until=None)
        return credentials.origin()

    def read(self, operation: str, *, service: str = "ec2", **arguments: Any) -> Answer:
        """A call that changes nothing. Raises what ``error_codes.explain`` makes of an error."""
        answer: Answer = self._repeatedly(operation, service, arguments, tolerate=())
        return answer

    def pages(self, operation: str, key: str, *, service: str = "ec2", **arguments: Any) -> Iterator[Any]:
        """The items under ``key`` of every page of a describe call."""
        token: dict[str, str] = {}
        while True:
            answer = self.read(operation, service=service, **arguments, **token)
            yield from answer.get(key, ())
            if not answer.get("NextToken"):
                return
            token = {"NextToken": answer["NextToken"]}

    def change(
        self,
        operation: str,
        *,
        service: str = "ec2",
        tolerate: tuple[str, ...] = (),
        just_made: tuple[str, ...] = (),
        **arguments: Any,
    ) -> Answer | None:
        """A call that makes, alters or removes something.

        Returns None on a code of ``tolerate`` (``"X.*"`` stands for all that begin so). Every such call
        either carries a ClientToken or can be repeated as it is, so that a lost answer costs nothing.
        """
        answer: Answer | None = self._repeatedly(operation, service, arguments, tolerate, just_made)
        return answer

    def attempt(
        self, operation: str, *, service: str = "ec2", just_made: tuple[str, ...] = (), **arguments: Any
    ) -> Answer:
        """Like ``change``, but an error answer is raised as ApiError, for a caller that goes by its code."""
        return self._retried(operation, service, arguments, just_made)

    def _repeatedly(
        self,
        operation: str,
        service: str,
        arguments: Answer,
        tolerate: tuple[str, ...],
        just_made: tuple[str, ...] = (),
    ) -> Any:
        try:
            return self._retried(operation, service, arguments, just_made)
        except ApiError as error:
            if matches(error.code, tolerate):
                return None
            raise explain(error.code, error.message, operation) from None

    def _retried(self, operation: str, service: str, arguments: Answer, just_made: tuple[str, ...]) -> Answer:
        began, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            try:
                return self.call_once(operation, service, arguments)
            except ApiError as error:
                if not is_retryable(error.code) and not matches(error.code, just_made):
                    raise
                wait = random.uniform(0.5, 1.0) * min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**attempt)
                if time.monotonic() - began + wait > self.retry_seconds:
                    raise self._given_up(operation, error, attempt, began) from None
                self.emit(Retrying(operation=operation, code=error.code, attempt=attempt, wait_seconds=wait))
                self.sleep(wait)

    def _given_up(self, operation: str, error: ApiError, attempts: int, began: float) -> Exception:
        if not is_retryable(error.code):
            return explain(error.code, error.message, operation)
        return DeadlineExceeded(
            f"{operation} in {self.name} still answers {error.code} after {attempts} attempts in "
            f"{time.monotonic() - began:.0f} s ({error.message}); run the same command again later."
        )

    def call_once(self, operation: str, service: str, arguments: Answer) -> Answer:
        """One attempt of a call. Raises ApiError with EC2's code, or one of ours where it never answered."""
        from botocore import exceptions as boto

        try:
            client = self.client(service)
            with interrupts_held():  # the answer alone says what was made
                answer: Answer = getattr(client, operation)(**arguments)
            self._ahead = _ahead(answer)
            return answer
        except (boto.HTTPClientError, boto.ConnectionError) as error:
            raise ApiError("ConnectionLost", str(error), operation) from None
        except (boto.ClientError, boto.BotoCoreError) as error:
            if credentials.is_about_them(error):
                raise ApiError(credentials.code_of(error), str(error), operation) from None
            if isinstance(error, boto.ClientError):
                self._ahead = _ahead(error.response)  # a refusal is dated as well
                answer = error.response["Error"]
                raise ApiError(answer.get("Code", ""), answer.get("Message", ""), operation) from None
            # refused before it was sent
            raise ApiError("InvalidParameterValue", str(error), operation) from None

    def client(self, service: str) -> Any:
        """boto3's client of a service, made once. Raises ApiError where there are no credentials."""
        with self._making:
            if not self._clients and not self._keys:
                self._require_credentials()
            if service not in self._clients:
                self._clients[service] = self._make_client(service)
            return self._clients[service]

    def _require_credentials(self) -> None:
        """Raises ApiError with a code for each way in which they cannot be had."""
        from botocore import exceptions as boto

        _require_known(self.name)
        try:
            credentials.require()
        except (boto.HTTPClientError, boto.ConnectionError):
            raise  # the network's own
        except Exception as error:  # noqa: BLE001 - a credential_process may fail in every way there is
            raise ApiError(credentials.code_of(error), str(error), "credentials") from None

    def _make_client(self, service: str) -> Any:
        from botocore.config import Config

        _require_known(self.name)
        return credentials.session(self._keys).client(
            service,
            region_name=self.name,
            endpoint_url=self.endpoint_url,
            config=Config(
                # None: those of the environment
                proxies={} if self.endpoint_url and is_loopback(self.endpoint_url) else None,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                read_timeout=READ_TIMEOUT_SECONDS,
                # repeated above, where it can be seen: botocore would repeat a pool without capacity as well
                retries={"total_max_attempts": 1, "mode": "standard"},
                max_pool_connections=32,
            ),
        )


@cache
def _require_known(name: str) -> None:
    """Raises UsageError for a region that is none: its endpoint would be asked for in vain for minutes."""
    everything = credentials.session(("any", "any"))  # a list in botocore, whoever asks
    known = {one for part in PARTITIONS for one in everything.get_available_regions("ec2", part)}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "one looks like us-east-1."
        raise UsageError(f"There is no region {name} that this version of boto3 knows; {hint}")


def _ahead(answer: Answer) -> timedelta:
    """What the answer's date says of the cloud's clock; nothing, where it says no more than whole seconds."""
    told = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        difference = parsedate_to_datetime(told) - datetime.now(UTC)
    except (TypeError, ValueError):
        return timedelta()
    return difference if abs(difference) > CLOCKS_AGREE else timedelta()


def matches(code: str, patterns: tuple[str, ...]) -> bool:
    return any(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), code) is not None for pattern in patterns
    )
