"""Every error code EC2 may answer with has its message: what, why, what to do. A golden file holds them.

SPARKNET_UPDATE_GOLDEN=1 pytest tests/infra/test_error_table.py    rewrites it
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.ec2 import error_codes, error_table
from infra.errors import CapacityError, CloudError, CredentialsError, InfraError, QuotaError, UsageError

GOLDEN = Path(__file__).parent.parent / "golden/infra/error_messages.txt"

EXPECTED = {
    CapacityError: (
        "InsufficientInstanceCapacity InsufficientHostCapacity InsufficientReservedInstanceCapacity "
        "UnfulfillableCapacity InsufficientCapacity InsufficientFreeAddressesInSubnet SpotMaxPriceTooLow "
        "Unsupported InvalidFleetConfiguration"
    ),
    QuotaError: (
        "VcpuLimitExceeded MaxSpotInstanceCountExceeded InstanceLimitExceeded VolumeLimitExceeded "
        "MaxFleetCountExceeded"
    ),
    CredentialsError: (
        "UnauthorizedOperation AuthFailure ExpiredToken RequestExpired OptInRequired PendingVerification "
        "Blocked NoCredentials"
    ),
    UsageError: (
        "InvalidKeyPair.NotFound InvalidAMIID.NotFound InvalidAMIID.Malformed InvalidAMIID.Unavailable "
        "InvalidSubnetID.NotFound InvalidGroup.NotFound InvalidParameterCombination InvalidParameterValue "
        "InvalidInstanceType"
    ),
}
RETRIED = "RequestLimitExceeded Throttling InternalError ServerInternal ServiceUnavailable Unavailable"


@pytest.mark.parametrize(
    ("kind", "code"), [(kind, code) for kind, words in EXPECTED.items() for code in words.split()]
)
def test_each_code_ends_in_its_own_exit_status(kind: type[InfraError], code: str) -> None:
    error = error_codes.explain(code, "AWS's words", "create_fleet")
    assert isinstance(error, kind)
    assert code in str(error)
    assert "AWS's words" in str(error)


@pytest.mark.parametrize("code", RETRIED.split())
def test_what_passes_by_itself_is_made_again(code: str) -> None:
    assert error_codes.is_retryable(code)


def test_a_code_nobody_knows_is_told_as_it_came() -> None:
    error = error_codes.explain("Mystery", "who knows", "run_instances")
    assert isinstance(error, CloudError)
    assert (error.code, error.operation) == ("Mystery", "run_instances")
    assert str(error) == "EC2 answered Mystery to run_instances: who knows"


def test_no_code_is_both_final_and_retried() -> None:
    assert error_codes.RETRYABLE.isdisjoint(error_table.ERROR_TABLE)


def test_the_messages_are_those_of_the_golden_file() -> None:
    told = "\n\n".join(
        f"{code} (exit {error.exit_status})\n{error}"
        for code in sorted(error_table.ERROR_TABLE)
        for error in [error_codes.explain(code, "...", "create_fleet")]
    )
    if os.environ.get("SPARKNET_UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(told + "\n")
    assert GOLDEN.read_text() == told + "\n"
