"""What EC2's error codes mean for a caller: call again, try another pool, or tell the user.

``explain`` turns a code into the exception of ``infra.errors`` whose exit status fits, with the words of
``error_table.py``.
"""

from __future__ import annotations

from infra.ec2.error_table import ERROR_TABLE
from infra.errors import CapacityError, CloudError, InfraError

#: Passes by itself: made again, with the same ClientToken.
RETRYABLE = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "InternalError",
        "InternalFailure",
        "ServerInternal",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "Unavailable",
        "EC2ThrottledException",
        # between this machine and AWS: the work may have been done, the answer was lost
        "ConnectionLost",
    }
)

#: Another pool may have the machines.
POOL_CODES = frozenset(code for code, row in ERROR_TABLE.items() if issubclass(row.error, CapacityError))


#: The same in the words of the services that speak JSON, as Service Quotas and SSM, and of STS.
ALIASES = {
    "AccessDeniedException": "AccessDenied",
    "ExpiredTokenException": "ExpiredToken",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "IncompleteSignature": "SignatureDoesNotMatch",
    "MissingAuthenticationToken": "NoCredentials",
    "UnrecognizedClientException": "InvalidClientTokenId",
}


def is_retryable(code: str) -> bool:
    """Whether the same call, made again later, can succeed."""
    return code in RETRYABLE


def explain(code: str, message: str, operation: str) -> InfraError:
    """The error to raise for ``code``: what, AWS's own words, why, and the command that helps."""
    meaning = ERROR_TABLE.get(ALIASES.get(code, code))
    if meaning is None:
        return CloudError(f"EC2 answered {code} to {operation}: {message}", code=code, operation=operation)
    text = f"{meaning.what} ({code} from {operation}: {message})\n  why: {meaning.why}\n  try: {meaning.fix}"
    if issubclass(meaning.error, CloudError):
        return meaning.error(text, code=code, operation=operation)
    return meaning.error(text)
