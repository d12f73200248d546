"""The commands of infra/local/README.md, run as they are printed there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.models.scenario import Scenario

ROOT = Path(__file__).parents[3]
README = (ROOT / "infra/local/README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(block: str) -> str:
    """What is typed: the lines after the prompt, without the options that are only described."""
    lines = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    return "\n".join(re.sub(r" \[--.*\]$", "", line) for line in lines)


def test_the_scenario_in_the_readme_is_one(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(blocks("yaml")[0])
    scenario = Scenario.read(path)
    assert scenario.hosts == "none"
    assert [fault.kind for fault in scenario.faults] == ["lost", "throttle", "error", "signal"]


def test_the_call_in_the_readme_is_one_of_the_calls() -> None:
    shown = blocks("python")[1].removesuffix(" ...\n")
    assert any(shown in path.read_text() for path in (ROOT / "infra/local/calls").glob("*.py"))


def test_every_file_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"`([a-z][a-z_/]*(?:\.py|/))`", README))
    assert {"models/faults.py", "calls/", "hosts/stand_ins/"} <= named
    missing = [name for name in named if not any((at / name).exists() for at in (ROOT, ROOT / "infra/local"))]
    assert missing == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("aws") is None, reason="the AWS CLI is not installed")
def test_the_commands_in_the_readme_work(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = {
        **kept,
        "SPARKNET_EC2_HOME": str(tmp_path / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with_cli, with_control = (commands(block) for block in blocks("console"))
    instance = "aws ec2 run-instances --image-id ami-0d1a51a51a51a2204 --instance-type g6.xlarge"
    as_spot = "--instance-market-options MarketType=spot"
    spot = f"{instance} {as_spot} --query 'Instances[0].InstanceId' --output text"
    start, stop = with_cli.split("\n")[:-1], with_cli.split("\n")[-1]
    script = "\n".join(
        [
            "set -e",
            *start,
            f"spot=$({spot})",
            with_control.replace("i-0123456789abcdef0", "$spot"),
            stop,
        ]
    )
    said = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert said.returncode == 0, said.stderr + said.stdout
    assert '{"error"' not in said.stdout
    log, _ = json.JSONDecoder().raw_decode(said.stdout, said.stdout.index('[{"index"'))
    assert "RunInstances" in {call["action"] for call in log}
    assert not (tmp_path / "home/local/endpoint.json").exists()
