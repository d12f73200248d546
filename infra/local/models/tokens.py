"""Client tokens: the same call twice is done once.

The same token with the same parameters gets the first answer again; with others,
IdempotentParameterMismatch, even if the first call failed for want of capacity. Other failures leave no
trace of the token. https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from moto.ec2.exceptions import EC2ClientError

CAPACITY_CODES = {"InsufficientInstanceCapacity", "SpotMaxPriceTooLow", "MaxSpotInstanceCountExceeded"}
NOT_COMPARED = {"ClientToken", "DryRun"}

T = TypeVar("T")


class Tokens:
    """The tokens that were used: what for, and the answer."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str, str], tuple[str, Any]] = {}

    def once(self, response: Any, action: str, work: Callable[[], T]) -> T:
        """The answer of ``work``, which is done only if no call with this token did it before."""
        token = response._get_param("ClientToken")
        if not token:
            return work()
        key = (response.region, action, token)
        asked = fingerprint(response._get_params())
        answer: T | None
        before, answer = self._used.get(key, (asked, None))
        if before != asked:
            raise EC2ClientError(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous "
                "request(s).",
            )
        if answer is not None:
            return answer
        try:
            answer = work()
        except EC2ClientError as error:
            if error.code in CAPACITY_CODES:
                self._used[key] = (asked, None)
            raise
        self._used[key] = (asked, answer)
        return answer


def fingerprint(parameters: dict[str, Any]) -> str:
    """All that must be equal in calls that share a token."""
    compared = {name: value for name, value in parameters.items() if name not in NOT_COMPARED}
    return json.dumps(compared, sort_keys=True, default=str)
