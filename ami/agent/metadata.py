"""The instance metadata service, version 2: what it says of this instance, and the time by its clock.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
"""

import os
import time
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

ENDPOINT = "http://169.254.169.254"
TIMEOUT_SECONDS = 2.0
TOKEN_SECONDS = 21600  # the longest it gives
CLOCK_SECONDS = 2.0  # a difference below this is no difference: its clock is told in whole seconds
TTL, TOKEN = "X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token"


class Metadata:
    """Asked directly, past any proxy."""

    def __init__(self, endpoint=None):
        where = urlsplit(endpoint or os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or ENDPOINT)
        self._address = where.hostname, where.port or 80
        self._path = where.path.rstrip("/")
        self._token = ""
        self._ahead = 0.0  # seconds of its clock before this machine's

    def get(self, path):
        """The text at ``path`` below meta-data, None if there is none. Raises OSError without an answer."""
        for _ in range(2):
            status, text = self._ask(
                "GET", f"/latest/meta-data/{path}", {TOKEN: self._token or self._renewed()}
            )
            if status != 401:  # the token has expired
                break
            self._token = ""
        if status == 404:
            return None
        if status != 200:
            raise OSError(f"the metadata service answers {status} for {path}")
        return text

    def wait(self, seconds):
        """Until it answers, and its clock is known, but not for longer than so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self.get("instance-id")
            except OSError:
                time.sleep(1)
            else:
                return

    def now(self):
        """Seconds since the epoch by its clock, as it was at its last answer."""
        return time.time() + self._ahead

    def _renewed(self):
        status, self._token = self._ask("PUT", "/latest/api/token", {TTL: str(TOKEN_SECONDS)})
        if status != 200:
            self._token = ""
            raise OSError(f"the metadata service answers {status} instead of a token")
        return self._token

    def _ask(self, method, path, headers):
        connection = HTTPConnection(*self._address, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, self._path + path, headers=headers)
            answer = connection.getresponse()
            self._set_clock(answer.getheader("Date", ""))
            return answer.status, answer.read().decode(errors="replace")
        except HTTPException as error:
            raise OSError(f"the metadata service: {error!r}") from error
        finally:
            connection.close()

    def _set_clock(self, date):
        try:
            ahead = parsedate_to_datetime(date).timestamp() - time.time()
        except (TypeError, ValueError):
            return
        self._ahead = ahead if abs(ahead) > CLOCK_SECONDS else 0.0
