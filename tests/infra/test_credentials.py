"""Credentials that cannot be had end every verb with status 3 and the cure; regions are the AWS command's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.ec2 import credentials
from infra.errors import CredentialsError
from infra.local import LocalCloud
from tests.infra.conftest import Run

CONFIG = f"""\
[default]
region = eu-central-1
[profile fails]
credential_process = {sys.executable} -c "raise SystemExit('the vault is closed')"
[profile missing]
credential_process = /nonexistent/vault
[profile says-nonsense]
credential_process = {sys.executable} -c "print('hello')"
[profile sso]
region = eu-west-1
sso_session = me
sso_account_id = 111122223333
sso_role_name = dev
[sso-session me]
sso_region = us-east-1
sso_start_url = https://example.awsapps.com/start
[profile sso-of-old]
sso_region = us-east-1
sso_start_url = https://example.awsapps.com/start
sso_account_id = 111122223333
sso_role_name = dev
[profile of-nobody]
role_arn = arn:aws:iam::111122223333:role/x
source_profile = nobody
[profile circle]
role_arn = arn:aws:iam::111122223333:role/x
source_profile = circle-2
[profile circle-2]
role_arn = arn:aws:iam::111122223333:role/x
source_profile = circle
[profile web-identity]
role_arn = arn:aws:iam::111122223333:role/x
web_identity_token_file = /nonexistent/token
[profile half]
aws_access_key_id = AKIA1
"""

Configured = Callable[..., None]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Configured]:
    """Nothing of this machine's own AWS configuration; variables and the text of a file in its place."""
    import os

    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("HOME", str(tmp_path))  # of the cache of single sign-on

    def configure(text: str = CONFIG, **variables: str) -> None:
        file = tmp_path / "aws-config"
        file.write_text(text)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        credentials.session.cache_clear()

    yield configure
    credentials.session.cache_clear()


@pytest.mark.parametrize(
    ("profile", "sentences"),
    [
        ("fails", ("the vault is closed", "credential_process can be run by hand")),
        ("missing", ("/nonexistent/vault", "credential_process can be run by hand")),
        ("says-nonsense", ("could not be had", "credential_process can be run by hand")),
        ("sso", ("The sign-in to AWS has expired, or there was none.", "try: aws sso login")),
        ("sso-of-old", ("The sign-in to AWS has expired, or there was none.", "try: aws sso login")),
        ("nowhere", ("There is no such profile.", "nowhere", "aws configure list-profiles")),
        ("of-nobody", ("The AWS configuration cannot be used.", "nobody")),
        ("circle", ("The AWS configuration cannot be used.", "circle-2")),
        ("web-identity", ("/nonexistent/token", "aws sts get-caller-identity")),
        ("half", ("aws_secret_access_key", "aws configure")),
    ],
)
def test_credentials_that_cannot_be_had_are_status_3_and_the_cure(
    profile: str, sentences: tuple[str, ...], configured: Configured, alone: Run
) -> None:
    configured(AWS_PROFILE=profile)
    for verb in ("status", "plan", "destroy"):
        status, out, err = alone(verb, "--cloud", "aws")
        assert (status, out) == (3, ""), err
        assert all(sentence in err for sentence in sentences), err


def test_a_file_that_is_none_of_aws_is_status_3(configured: Configured, alone: Run) -> None:
    configured("[default\n")
    status, _, err = alone("status", "--cloud", "aws")
    assert (status, "Unable to parse config file" in err) == (3, True), err


def test_the_region_is_the_one_of_the_aws_command(configured: Configured) -> None:
    configured("")
    assert credentials.configured_region() == ""
    configured()
    assert credentials.configured_region() == "eu-central-1"
    configured(AWS_PROFILE="sso")
    assert credentials.configured_region() == "eu-west-1"
    configured(AWS_DEFAULT_REGION="ap-south-1")
    assert credentials.configured_region() == "ap-south-1"
    configured(AWS_REGION="us-west-2")
    assert credentials.configured_region() == "us-west-2"
    configured(AWS_REGION="", AWS_DEFAULT_REGION="", AWS_PROFILE="nowhere")
    with pytest.raises(CredentialsError, match="nowhere"):
        credentials.configured_region()


def test_that_region_is_asked_on_aws_and_an_option_goes_before_it(configured: Configured, alone: Run) -> None:
    configured(AWS_REGION="us-nowhere-1")
    status, _, err = alone("status", "--cloud", "aws")
    assert (status, "There is no region us-nowhere-1" in err) == (2, True), err
    status, _, err = alone("status", "--cloud", "aws", "-r", "us-nowhere-2")
    assert (status, "There is no region us-nowhere-2" in err) == (2, True), err


def test_the_embedded_cloud_has_nothing_to_do_with_the_users_own_configuration(
    configured: Configured, simulation: LocalCloud
) -> None:
    from infra.ec2.region import Region

    keys = tuple(simulation.credentials.values())
    for text, profile in ((CONFIG, "nowhere"), ("[default\n", "default")):
        configured(text, AWS_PROFILE=profile, AWS_REGION="eu-west-1")
        region = Region("us-east-1", endpoint_url=simulation.endpoint_url, keys=(keys[0], keys[1]))
        assert region.read("describe_regions")["Regions"]
        region.close()
