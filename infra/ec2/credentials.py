"""Credentials: the session that signs every call, the region it is for, and why there is none.

boto3 finds credentials where the AWS command does: in the environment, in ~/.aws (profiles, roles, single
sign-on, a credential_process), in an instance's metadata. Each way can fail with exceptions of its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

#: The AWS command asks these in turn, before it looks at the profile.
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
#: The calls that botocore makes by itself for credentials.
FETCHES = (
    "AssumeRole",
    "AssumeRoleWithSAML",
    "AssumeRoleWithWebIdentity",
    "CreateToken",
    "GetRoleCredentials",
)


@cache
def session(keys: tuple[str, str] | None) -> Any:
    """One for all regions.

    ``keys``: an access key and its secret, with which nothing of the user's own configuration is read; None:
    those that boto3 finds.
    """
    import boto3
    import botocore.session

    from infra import service_models

    service_models.install()
    if keys is None:
        return boto3.session.Session()
    nowhere = (None, None, os.devnull, None)
    own = {"profile": (None, None, None, None), "config_file": nowhere, "credentials_file": nowhere}
    key_id, secret = keys
    return boto3.session.Session(
        botocore_session=botocore.session.Session(session_vars=own),
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
    )


def configured_region() -> str:
    """The region that the AWS command would take, empty if nothing names one.

    Raises CredentialsError if the profile that is asked for cannot be read.
    """
    from infra.ec2.error_codes import explain

    named = next((os.environ[name] for name in REGION_VARIABLES if os.environ.get(name)), "")
    if named:
        return named
    try:
        import botocore.session

        return str(botocore.session.Session().get_scoped_config().get("region", ""))
    except Exception as error:  # noqa: BLE001 - as many classes as there are ways to write a profile
        raise explain(code_of(error), str(error), "the profile's region") from None


def require() -> None:
    """Find the user's own credentials, and read them once.

    Raises what botocore raises for a network that fails, or an exception for which ``code_of`` has a code.
    """
    from botocore import exceptions as boto

    found = session(None).get_credentials()
    if found is None:
        raise boto.NoCredentialsError
    found.get_frozen_credentials()


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where credentials come from, in words, and until when they hold (None: until somebody ends them)."""

    method: str
    until: datetime | None


_METHODS = {
    "env": "the environment",
    "shared-credentials-file": "the file of credentials",
    "config-file": "the configuration file",
    "sso": "single sign-on",
    "login": "a sign-in by the browser",
    "assume-role": "an assumed role",
    "assume-role-with-web-identity": "a role assumed by a web identity",
    "custom-process": "a credential_process",
    "iam-role": "this instance's role",
    "container-role": "this container's role",
}


def origin() -> Origin:
    """Where the user's own credentials come from. To be called once they are known to be there."""
    made = session(None)
    found = made.get_credentials()
    found.get_frozen_credentials()
    method = _METHODS.get(found.method, found.method)
    profile = f", profile {made.profile_name}" if made.profile_name != "default" else ""
    # botocore tells the end of what it renews itself nowhere else
    return Origin(method=f"{method}{profile}", until=getattr(found, "_expiry_time", None))


def code_of(error: Exception) -> str:
    """The row of ``error_table.py`` for an ``error`` met on the way to credentials."""
    from botocore import exceptions as boto

    match error:
        case boto.NoCredentialsError() | boto.PartialCredentialsError():
            return "NoCredentials"
        case boto.ProfileNotFound():
            return "ProfileNotFound"
        case boto.SSOError() | boto.TokenRetrievalError() | boto.LoginError():
            return "SignInExpired"
        case boto.ConfigParseError() | boto.ConfigNotFound() | boto.InvalidConfigError():
            return "InvalidConfiguration"
    return "CredentialsUnavailable"


def is_about_them(error: Exception) -> bool:
    """Whether ``error``, raised by a call to EC2, was met on the way to credentials."""
    from botocore import exceptions as boto

    if isinstance(error, boto.ClientError):
        return error.operation_name in FETCHES
    return isinstance(
        error,
        boto.NoCredentialsError
        | boto.PartialCredentialsError
        | boto.CredentialRetrievalError
        | boto.ProfileNotFound
        | boto.SSOError
        | boto.TokenRetrievalError
        | boto.LoginError
        | boto.ConfigParseError
        | boto.ConfigNotFound
        | boto.InvalidConfigError
        | boto.RefreshWithMFAUnsupportedError
        | boto.UnknownCredentialError
        | boto.MetadataRetrievalError
        | boto.NoAuthTokenError,
    )
