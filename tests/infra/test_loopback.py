"""HTTP proxies of the environment never stand between the product and this very machine."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from infra.ec2.region import Region
from infra.local import LocalCloud
from infra.loopback import VARIABLES, is_loopback, unproxied

DEAD = "http://192.0.2.1:9"  # an address that nobody has (RFC 5737)
PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose way out is a proxy, and whose administrator thought of nothing else."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in PROXIES:
        monkeypatch.setenv(name, DEAD)


@pytest.mark.parametrize(
    ("url", "is_ours"),
    [
        ("http://127.0.0.1:5000", True),
        ("http://127.9.8.7/", True),
        ("http://[::1]:80/", True),
        ("http://localhost:1/x", True),
        ("https://ec2.us-east-1.amazonaws.com", False),
        ("http://127.example.com", False),
        ("not a url", False),
    ],
)
def test_loopback_is_told_from_other_places(url: str, is_ours: bool) -> None:
    assert is_loopback(url) == is_ours


def test_what_the_user_leaves_out_of_the_proxy_stays_left_out() -> None:
    assert unproxied({"PATH": "/bin"}) == {}
    assert unproxied({"no_proxy": "corp"}) == {}
    added = unproxied({"HTTP_PROXY": DEAD, "NO_PROXY": "corp, 10.0.0.1"})
    assert added["no_proxy"] == added["NO_PROXY"]
    assert added["no_proxy"].split(",")[:4] == ["corp", "10.0.0.1", "localhost", "127.0.0.1"]


@pytest.mark.usefixtures("proxied")
def test_calls_to_the_embedded_cloud_pass_no_proxy(simulation: LocalCloud) -> None:
    key, secret = simulation.credentials.values()
    region = Region("us-east-1", endpoint_url=simulation.endpoint_url, keys=(key, secret), retry_seconds=1)
    assert region.read("describe_vpcs")["Vpcs"]
    region.close()
    assert simulation.limits()


@pytest.mark.usefixtures("proxied")
def test_calls_to_aws_take_the_proxy() -> None:
    region = Region("us-east-1", keys=("key", "secret"))
    pool = region.client("ec2")._endpoint.http_session._proxy_config
    assert pool.proxy_url_for("https://ec2.us-east-1.amazonaws.com") == DEAD
    region.close()


@pytest.mark.usefixtures("proxied")
def test_what_is_exported_for_other_programs_leads_past_the_proxy(simulation: LocalCloud) -> None:
    code = "import boto3\nprint(len(boto3.client('ec2').describe_vpcs()['Vpcs']))"
    environment = {**os.environ, **simulation.environment}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60)
    assert (ran.returncode, ran.stdout.strip()) == (0, b"1"), ran.stderr[-500:]


@pytest.mark.usefixtures("proxied")
def test_the_command_starts_and_asks_an_embedded_cloud_behind_a_proxy(tmp_path: Path) -> None:
    environment = {**os.environ, "SPARKNET_EC2_HOME": str(tmp_path), "SPARKNET_EC2_HOSTS": "processes"}

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from infra.cli import main; main()", *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
        )

    try:
        started = command("local", "start")
        assert started.returncode == 0, started.stderr
        shown = command("local", "status")
        assert "export NO_PROXY=localhost,127.0.0.1" in shown.stdout, shown.stdout
        planned = command("plan", "-s", "1")
        assert planned.returncode == 0, planned.stderr
    finally:
        command("local", "stop")


@pytest.mark.usefixtures("proxied")
def test_once_the_command_has_begun_all_its_clients_pass_no_proxy(
    simulation: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra.loopback import go_past_proxies

    for name in VARIABLES:
        monkeypatch.setenv(name, "corp")  # put back by monkeypatch afterwards
    go_past_proxies()
    request = urllib.request.Request(f"{simulation.endpoint_url}/_sparknet/health")
    with pytest.raises(urllib.error.HTTPError) as answered:  # it answered: nobody who has no key
        urllib.request.urlopen(request, timeout=5)
    assert answered.value.code == 403
    answered.value.close()
    assert os.environ["NO_PROXY"].startswith("corp,")
