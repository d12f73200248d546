"""A task that can never succeed ends its stage with one sentence, instead of being tried again.

Spark tries a task ``spark.task.maxFailures`` times, which in sessions for training is very often, and prints
a page for each. A task that meets a value that cannot be sends the sentence to the driver, which cancels the
stage: the user's action fails with it, within seconds, and with no page of Java's.

    cancel = canceller(spark)                  in the driver; travels with the task's function
    cancel("column age, partition 0, row 3: NULL, but a value is needed")             in the task
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import socket
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, cast

from py4j.protocol import Py4JError
from pyspark import SparkContext, TaskContext

log = logging.getLogger(__name__)

# A message and its token; what is longer is somebody else's.
_BYTES = 8192
_SECONDS = 5.0
# An error of Spark's whose text is given.
_CONDITION = "USER_RAISED_EXCEPTION"
# How long a task waits to be cancelled: Spark gives Python two seconds to notice.
_PATIENCE = 10.0


@dataclass(frozen=True)
class Canceller:
    """Cancels the stage of the task it is called in; pickles. ``token`` proves that it is one of ours."""

    address: tuple[str, int]
    token: str = field(repr=False)

    def __call__(self, reason: str) -> None:
        """Returns if nobody cancels it: then the task has to fail by itself."""
        context = TaskContext.get()
        if context is None:
            return
        message = {"token": self.token, "stage": context.stageId(), "reason": reason[:2000]}
        try:
            with socket.create_connection(self.address, _SECONDS) as connection:
                connection.sendall(json.dumps(message).encode() + b"\n")
                connection.recv(1)  # an answer: it has been read
        except OSError:
            return
        time.sleep(_PATIENCE)


class Listener:
    """Waits for cancellers of one SparkContext, in a thread of its own."""

    def __init__(self, context: SparkContext) -> None:
        conf = context.getConf()
        host = conf.get("spark.driver.host", "localhost") or "localhost"
        self._context = context
        self._socket = socket.create_server((conf.get("spark.driver.bindAddress", None) or host, 0))
        self.canceller = Canceller((host, self._socket.getsockname()[1]), secrets.token_hex(32))
        threading.Thread(target=self._listen, name="sparknet-cancelling", daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with closing(connection):
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_SECONDS)
        try:
            with connection.makefile("rb") as lines:
                message = json.loads(lines.readline(_BYTES))
            if not hmac.compare_digest(str(message["token"]), self.canceller.token):
                return
            connection.sendall(b".")
            abort(self._context, int(message["stage"]), str(message["reason"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, Py4JError) as error:
            log.debug("a stage was not cancelled: %s", error)


def abort(context: SparkContext, stage: int, reason: str) -> None:
    """End a stage so that whoever waits for it gets an error of one line.

    An error with a name of Spark's own is what a user's action raises, as it is; a stage that is cancelled
    raises Java's pages. Where Spark does not do the one, the other is left.
    """
    spark = context._jsc.sc()
    try:
        java = cast("Any", context._jvm)
        attempt = spark.statusStore().lastStageAttempt(stage).attemptId()
        tasks = spark.taskScheduler().taskSetManagerForAttempt(stage, attempt).get().taskSet()
        error = java.org.apache.spark.SparkIllegalArgumentException(_CONDITION, {"errorMessage": reason})
        spark.dagScheduler().taskSetFailed(tasks, reason, java.scala.Option.apply(error))
    except (Py4JError, TypeError, AttributeError) as error:
        log.debug("stage %d is cancelled instead: %s", stage, error)
        spark.cancelStage(stage, reason)


_LISTENERS: dict[str, Listener] = {}
_LOCK = threading.Lock()


def canceller(context: SparkContext) -> Canceller:
    """The canceller of this application."""
    with _LOCK:
        if context.applicationId not in _LISTENERS:
            _LISTENERS[context.applicationId] = Listener(context)
        return _LISTENERS[context.applicationId].canceller
