"""One border to AWS: what passes by itself is made again, the rest has a name. Needs no server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore import exceptions as boto

from infra.ec2.region import ApiError, Region
from infra.errors import (
    CapacityError,
    CloudError,
    CredentialsError,
    DeadlineExceeded,
    Interrupted,
    UsageError,
)
from infra.events import Event, Retrying
from infra.interrupts import interrupts_held, interrupts_raise


def refusal(code: str) -> Exception:
    return boto.ClientError({"Error": {"Code": code, "Message": "no"}}, "Anything")


class Client:
    """Answers a call with the next of ``answers``: an exception is raised, the last one stays."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[dict[str, Any]] = []

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            self.calls.append(arguments)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def region(client: Client, told: list[Event] | None = None, seconds: float = 60) -> Region:
    waited: list[float] = []
    made = Region(
        "us-east-1",
        emit=(told if told is not None else []).append,
        retry_seconds=seconds,
        sleep=waited.append,
    )
    made.client = lambda _service: client  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize(
    "failure",
    [
        refusal("RequestLimitExceeded"),
        refusal("InternalError"),
        refusal("Unavailable"),
        boto.ReadTimeoutError(endpoint_url="https://ec2"),
        boto.ConnectionClosedError(endpoint_url="https://ec2"),
        boto.EndpointConnectionError(endpoint_url="https://ec2"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_what_passes_by_itself_is_made_again_with_the_same_token_and_shown(failure: Exception) -> None:
    client, told = Client(failure, failure, {"Fleet": 1}), list[Event]()
    assert region(client, told).change("create_fleet", ClientToken="abc") == {"Fleet": 1}
    assert client.calls == [{"ClientToken": "abc"}] * 3
    assert [event.attempt for event in told if isinstance(event, Retrying)] == [1, 2]


def test_what_does_not_pass_ends_at_a_deadline_that_says_what_was_tried() -> None:
    with pytest.raises(DeadlineExceeded, match="describe_instances in us-east-1 still answers Throttling"):
        region(Client(refusal("Throttling")), seconds=0.1).read("describe_instances")


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (refusal("UnauthorizedOperation"), CredentialsError),
        (boto.NoCredentialsError(), CredentialsError),
        (boto.ProfileNotFound(profile="me"), CredentialsError),
        (boto.UnauthorizedSSOTokenError(), CredentialsError),
        (boto.CredentialRetrievalError(provider="custom-process", error_msg="no"), CredentialsError),
        (
            boto.ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "AssumeRole"),
            CredentialsError,
        ),
        (refusal("ExpiredTokenException"), CredentialsError),
        (refusal("InsufficientInstanceCapacity"), CapacityError),
        (refusal("InvalidAMIID.NotFound"), UsageError),
        (refusal("SomethingNew"), CloudError),
        (boto.ParamValidationError(report="bad"), UsageError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_the_rest_is_raised_at_once_under_its_name(failure: Exception, kind: type[Exception]) -> None:
    client = Client(failure)
    with pytest.raises(kind):
        region(client).change("run_instances")
    assert len(client.calls) == 1


def test_a_tolerated_code_is_no_failure() -> None:
    gone = Client(refusal("InvalidGroup.NotFound"))
    assert region(gone).change("delete_security_group", tolerate=("*.NotFound",)) is None


def test_a_caller_that_goes_by_the_code_gets_it() -> None:
    with pytest.raises(ApiError) as failed:
        region(Client(refusal("SpotMaxPriceTooLow"))).attempt("create_fleet")
    assert failed.value.code == "SpotMaxPriceTooLow"


def test_all_pages_are_read() -> None:
    client = Client({"Volumes": [1, 2], "NextToken": "more"}, {"Volumes": [3]})
    assert list(region(client).pages("describe_volumes", "Volumes")) == [1, 2, 3]
    assert client.calls == [{}, {"NextToken": "more"}]


def test_an_interrupt_during_a_call_is_raised_when_its_answer_is_known() -> None:
    import os
    import signal

    class Slow(Client):
        answered = False

        def __getattr__(self, operation: str) -> Callable[..., Any]:
            def call() -> Any:
                os.kill(os.getpid(), signal.SIGTERM)
                self.answered = True
                return {}

            return call

    client = Slow()
    with interrupts_raise(), pytest.raises(Interrupted, match="SIGTERM"):
        region(client).change("run_instances")
    assert client.answered


def test_an_interrupt_that_was_held_is_raised_once() -> None:
    import os
    import signal

    with interrupts_raise():
        with pytest.raises(Interrupted), interrupts_held(), interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
        with interrupts_held():
            pass
