"""The command: fast to answer, one sentence for each mistake, and the exit status that --help promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from infra import cluster
from infra.cli import command, configure
from infra.cli.command import VERBS
from infra.cli.job_output import JobOutput
from infra.cli.progress import ProgressDisplay
from infra.cli.target import Target, launching
from infra.cluster import Cloud
from infra.ec2 import cleanup
from infra.errors import InfraError
from infra.events import NodeProgress, Note, PhaseEnded, PhaseStarted, PoolAnswered, Removed, Retrying, ignore
from infra.spec import ClusterSpec
from tests import pages
from tests.infra.conftest import Run
from tests.infra.test_ssh import new_key as make_key


def test_help_answers_at_once_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom infra.cli.command import run\nstatus = run(['--help'])\n"
        "print(sorted(m for m in sys.modules if m.partition('.')[0] in "
        "('boto3', 'botocore', 'fabric', 'paramiko', 'moto', 'torch', 'pyspark', 'yaml')), file=sys.stderr)"
    )
    began = time.monotonic()
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    seconds = time.monotonic() - began
    assert ran.stderr.strip() == "[]"
    assert all(f"  {verb} " in ran.stdout for verb in VERBS)
    assert "Exit status: 0 done; 2 wrong usage; 3 credentials; 4 quota; 5 no capacity" in ran.stdout
    assert seconds < 2.0  # 0.2 on a quiet machine; the limit of half a second is for that


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_has_an_example_that_it_would_take(verb: str, alone: Run) -> None:
    status, out, _ = alone(verb, "--help")
    assert status == 0
    assert out.startswith(f"Usage: sparknet-ec2 {verb}")
    assert "None" not in out  # a bound of a range that has none
    (example, *_) = re.findall(rf"^ +(sparknet-ec2 {verb}\b.*)$", out.partition("\n")[2], flags=re.MULTILINE)
    pages.parse(example)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["lunch"], "There is no verb lunch. Did you mean launch?"),
        (["launch", "-s", "0"], "-s 0: a cluster needs at least one worker."),
        (["launch", "-s", "two"], "'two' is not a valid integer"),
        (["launch", "--bogus"], "No such option"),
        (["launch", "--cloud", "moon"], "'moon' is not one of 'local', 'aws'"),
        (["launch", "-p", "0"], "--spot-price 0 is too low"),
        (["launch", "--additional-tags", "a"], "--additional-tags 'a' is not of the form key:value."),
        (["status"], "There is no cluster sparknet"),
        (["submit", "CifarApp"], "make it with sparknet-ec2 launch --name sparknet"),
        (["submit", "CifraApp"], "did you mean CifarApp?"),
        (["logs"], "There is no cluster sparknet"),
        (["--config", "nowhere.yaml", "status"], "The options of nowhere.yaml cannot be read"),
        (["plan", "a", "b"], "Got unexpected extra argument (b) (sparknet-ec2 plan --help)"),
        (["plan", "--authorized-address", "0.0.0.0/0"], "lets the whole internet try the ssh port"),
        (["plan", "--spark-version", "newest"], "--spark-version newest is not a version like 4.1.0."),
        (["plan", "-k", "me"], "--key-pair me needs --identity-file, the private half of it."),
        (["plan", "-r", "us-eats-1", "--cloud", "aws"], "There is no region us-eats-1"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(words: list[str], sentence: str, alone: Run) -> None:
    status, out, err = alone(*words)
    assert (status, out) == (2, "")
    assert sentence in err
    assert len(err.splitlines()) == 1


def test_without_credentials_every_verb_says_so_with_status_3(
    alone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(variable, "/nonexistent")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    for words in (["launch"], ["status"], ["destroy", "-y"], ["submit", "CifarApp"]):
        status, _, err = alone(*words, "--cloud", "aws")
        assert (status, "No AWS credentials were found." in err) == (3, True), words
        assert "try: aws configure" in err


def test_one_launch_of_a_cluster_at_a_time(alone: Run, tmp_path: Path) -> None:
    target = Target(cloud="local", region="us-east-1", name="sparknet")
    with launching(target):
        status, _, err = alone("launch")
        assert status == 2
        assert f"A launch of sparknet is under way (process {os.getpid()})" in err
    assert not (tmp_path / "home").exists()


def test_destroying_nothing_says_so_and_is_no_failure(alone: Run) -> None:
    status, out, _ = alone("destroy", "--yes")
    assert status == 0
    assert out == "There is no cluster sparknet; 0 resources left.\n"


def test_a_cluster_from_launch_to_destroy(run: Run, spec: ClusterSpec) -> None:
    status, out, err = run("launch", "-s", "2", "--name", spec.name)
    assert (status, "is ready: a master and 2 workers" in out) == (0, True), err
    assert "launched 2" in err
    status, out, _ = run("status", spec.name)
    assert status == 0
    assert "worker-2" in out
    assert "Spark: ALIVE" in out
    assert "ends itself: at 20" in out
    status, out, _ = run("status", "--json", "--name", spec.name)
    assert json.loads(out)["status"]["cluster"]["workers"][1]["name"] == "worker-2"
    status, out, _ = run("cost", spec.name)
    assert out.startswith("cost: about $0.0")
    status, out, err = run("destroy", spec.name)
    assert status == 2
    assert "needs --yes" in err
    status, out, _ = run("destroy", spec.name, "-y")
    assert status == 0
    assert "0 resources left." in out
    assert "cost: about" in out


def test_a_command_runs_on_the_nodes_that_are_meant(run: Run, simulated: Cloud, spec: ClusterSpec) -> None:
    cluster.launch(simulated, replace(spec, workers=2), ignore)
    status, out, _ = run("run-command", "--name", spec.name, "--on", "workers", "--", "machine-facts.sh")
    assert status == 0
    assert out.startswith("== worker-1\nuser=ubuntu\n")
    assert "== master" not in out
    status, _, err = run("login", "--name", spec.name, "worker-9")
    assert (status, "there are: master, worker-1, worker-2" in err) == (2, True)
    assert "nothing to log in to" in run("login", "--name", spec.name)[2]
    status, out, _ = run("copy-file", "--name", spec.name, str(Path(__file__)), "/opt/x.py")
    assert (status, "is at /opt/x.py of master, worker-1, worker-2" in out) == (0, True)
    assert run("copy-file", "--name", spec.name, str(Path(__file__)), "x.py")[0] == 2
    cluster.destroy(simulated, spec.name, ignore)


def test_a_plan_shows_prices_and_quotas_and_makes_nothing(
    run: Run, simulation: Any, empty: Cloud, spec: ClusterSpec
) -> None:
    simulation.control("DELETE", "calls")
    status, out, _ = run("plan", "-s", "5", "-t", "g2.8xlarge,g6.xlarge", "--name", spec.name)
    assert status == 0
    assert "g2.8xlarge is retired; g4dn.12xlarge takes its place." in out
    assert "L-3819A6DF  G and VT spot: 20 vCPUs needed" in out
    assert "ssh from 198.51.100.7/32" in out
    assert "until it ends itself after 12 hours" in out
    calls = [call["action"] for call in simulation.control("GET", "calls") if not call.get("dry_run")]
    made = [one for one in calls if one.startswith(("Create", "Run", "Import", "Authorize"))]
    assert sorted(made) == ["CreateLaunchTemplate", "CreateSecurityGroup", "ImportKeyPair", "RunInstances"]
    # each of them once, as a DryRun: nothing is there
    assert cleanup.remaining(empty.region, None) == []
    assert run("destroy", spec.name)[1].startswith(f"There is no cluster {spec.name}")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-t", "g99.xlarge"], "us-east-1 offers none of g99.xlarge"),
        (["-a", "ami-bogus"], "That is not an image's id."),
        (["-a", "ami-0123456789abcdef0"], "There is no such image in this region."),
        (["--subnet-id", "subnet-01234567"], "There is no such subnet in this region."),
        (["--vpc-id", "vpc-01234567"], "vpc-01234567 is no VPC of us-east-1 that has a subnet"),
        (["--zone", "us-east-1e", "-t", "g6.xlarge"], "None of g6.xlarge is offered in us-east-1e"),
        (["-k", "me", "-i", "nowhere.pem"], "There is no key file nowhere.pem."),
        (["-k", "me", "-i", "open.pem"], "can be read by others (mode 644); run chmod 600 open.pem."),
        (["-k", "me", "-i", "mine.pem"], "There is no key pair of that name in this region."),
        (["--user-data", "nowhere.txt"], "There is no file nowhere.txt for --user-data."),
        (["--placement-group", "none"], "There is no such placement group in this region."),
        (["--additional-security-group", "sg-01234567"], "There is no such security group."),
        (["--max-price-per-hour", "0.1"], "the cluster could cost more than --max-price-per-hour 0.1"),
    ],
)
def test_what_is_not_there_ends_plan_and_launch_before_anything_is_made(
    run: Run,
    simulation: Any,
    spec: ClusterSpec,
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, mode in (("open.pem", 0o644), ("mine.pem", 0o600)):
        make_key(tmp_path / name)
        (tmp_path / name).chmod(mode)
    simulation.control("DELETE", "calls")
    for verb in ("plan", "launch"):
        status, out, err = run(verb, spec.name, *words)
        assert (status, out) == (5 if "offered in" in sentence else 2, "")
        assert sentence in err
    assert not any(call["changes"] for call in simulation.control("GET", "calls"))


def test_a_plan_that_cannot_be_carried_out_says_why_and_leaves_with_its_status(
    run: Run, simulation: Any, spec: ClusterSpec
) -> None:
    simulation.control("POST", "quotas", {"L-3819A6DF": 8})
    status, out, _ = run("launch", "--dry-run", "-s", "5", "--name", spec.name)
    assert status == 4
    assert "TOO SMALL" in out
    assert "PROBLEM: The quota L-3819A6DF" in out


def test_options_of_spark_ec2_are_answered_with_what_replaces_them(run: Run, spec: ClusterSpec) -> None:
    _, _, err = run("plan", "--copy-aws-credentials", "--no-ganglia", spec.name)
    assert "--instance-profile-name" in err
    assert "there is no Ganglia" in err


def test_orphans_are_found_priced_and_removed(run: Run, simulated: Cloud, spec: ClusterSpec) -> None:
    made = cluster.launch(simulated, spec, ignore)
    assert "No orphans." in run("gc")[1]
    tags = [{"Key": "sparknet:expires", "Value": "2020-01-01T00:00:00+00:00"}]
    simulated.region.change("create_tags", Resources=[node.id for node in made.nodes], Tags=tags)
    _, out, _ = run("gc")
    assert spec.name in out
    assert "its --max-hours are over" in out
    assert json.loads(run("gc", "--json")[1])["orphans"][0]["dollars_per_hour"] > 0
    assert "0 resources left." in run("gc", "--yes")[1]
    assert "No orphans." in run("gc")[1]


def test_the_flag_goes_before_the_environment_and_that_before_the_file(
    alone: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/config.yaml").write_text("name: from-file\n")
    assert "no cluster from-file" in alone("status")[2]
    monkeypatch.setenv("SPARKNET_NAME", "from-environment")
    assert "no cluster from-environment" in alone("status")[2]
    assert "no cluster from-flag" in alone("status", "--name", "from-flag")[2]
    assert "no cluster a-word" in alone("status", "a-word")[2]


def test_an_option_nobody_knows_in_the_file_is_named(alone: Run, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/config.yaml").write_text("spot-prize: 1\n")
    status, _, err = alone("status")
    assert status == 2
    assert "spot-prize" in err
    assert "spot-price" in err


def test_configure_writes_every_option_commented_out(alone: Run, tmp_path: Path) -> None:
    assert alone("configure")[0] == 0
    text = (tmp_path / "home/config.yaml").read_text()
    assert yaml.safe_load(text) is None
    awake = yaml.safe_load(
        "\n".join(
            line[2:]
            for line in text.splitlines()
            if line.startswith("# ")
            and ": " in line
            and line[2:].partition(":")[0].replace("-", "").isalnum()
        )
    )
    assert {"slaves", "spot-price", "max-hours", "region"} <= set(awake)
    assert alone("configure")[0] == 2
    assert alone("status")[0] == 2


def test_a_full_disk_is_one_sentence(alone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> str:
        raise OSError(28, "No space left on device", "/somewhere/config.yaml")

    monkeypatch.setattr(configure, "text", full)
    status, _, err = alone("configure", "--print")
    assert status == 6
    assert err == (
        "sparknet-ec2: The disk is full (/somewhere/config.yaml); make room and run the same command again.\n"
    )


def test_a_defect_shows_no_traceback_and_keeps_it(
    alone: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> str:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(configure, "text", broken)
    status, _, err = alone("configure", "--print")
    assert status == 6
    assert "ZeroDivisionError: oops" in err
    assert "Traceback" not in err
    assert "Traceback" in (tmp_path / "home/crash.log").read_text()


def test_events_are_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    display = ProgressDisplay(is_terminal=False)
    for event in (
        PhaseStarted(phase="buy"),
        NodeProgress(node="worker-1", phase="python"),
        PoolAnswered(purchase="spot", instance_type="g6.xlarge", zone="us-east-1a", answer="launched 2"),
        Retrying(operation="create_fleet", code="Throttling", attempt=1, wait_seconds=1.0),
        PhaseEnded(phase="buy", seconds=1.25),
        Removed(kind="volume", id="vol-1"),
        Note(text="A word."),
    ):
        display.emit(event)
    assert capsys.readouterr().err.splitlines() == [
        "    spot       g6.xlarge      us-east-1a   launched 2",
        "    create_fleet answers Throttling; attempt 2 in 1.0 s",
        "  buy           1.2 s",
        "    removed volume vol-1",
        "  A word.",
    ]


def test_rounds_become_a_bar_on_a_terminal_and_stay_lines_elsewhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for is_terminal in (False, True):
        progress = JobOutput(is_terminal=is_terminal)
        for line in ("hello", "round 3/6  loss 1.5", "bye"):
            progress.line(line)
    plain, _, drawn = capsys.readouterr().out.partition("bye\n")
    assert plain == "hello\nround 3/6  loss 1.5\n"
    assert "████████████░░░░░░░░░░░░  round 3/6  loss 1.5\nbye" in drawn


def test_every_error_has_a_status_that_help_names() -> None:
    def below(kind: type[InfraError]) -> set[int]:
        return {kind.exit_status}.union(*(below(one) for one in kind.__subclasses__()))

    assert below(InfraError) == {2, 3, 4, 5, 6, 7}
    assert isinstance(command.sparknet_ec2, click.Group)
    assert os.environ.get("AWS_PROFILE") is None


@pytest.mark.parametrize("words", [[], ["image"], ["local"]])
def test_a_command_by_itself_shows_its_help_and_is_no_failure(words: list[str], alone: Run) -> None:
    status, out, err = alone(*words)
    assert (status, err) == (0, "")
    assert out.startswith(" ".join(["Usage: sparknet-ec2", *words]))


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["submit", "CifarApp", "--tau", "10"], "sparknet-ec2 submit CifarApp -- --tau 10"),
        (["submit", "--name", "x", "my app.py", "--tau=1"], "submit --name x 'my app.py' -- --tau=1"),
        (["submit", "--tau=10", "CifarApp"], "sparknet-ec2 submit PROGRAM -- --tau ..."),
        (["submit", "CifarApp", "--detatch"], "Did you mean --detach?"),
        (["run-command", "ls", "-l"], "sparknet-ec2 run-command ls -- -l"),
    ],
)
def test_options_of_a_program_before_the_dashes_are_told_where_they_belong(
    words: list[str], cure: str, alone: Run
) -> None:
    status, _, err = alone(*words)
    assert status == 2
    assert cure in err
    assert "--" in err


@pytest.mark.parametrize("number", ["nan", "-nan", "inf", "NaN"])
def test_what_is_no_number_is_out_of_every_range(number: str, alone: Run) -> None:
    for verb, option in (
        ("launch", "--max-hours"),
        ("launch", "--spot-price"),
        ("plan", "--max-price-per-hour"),
        ("run-command", "--timeout"),
    ):
        status, _, err = alone(verb, f"{option}={number}")
        assert (status, "is out of range" in err or "is not in the range" in err) == (2, True), err


def test_a_mistyped_cluster_is_answered_with_those_there_are(
    run: Run, simulated: Cloud, spec: ClusterSpec
) -> None:
    cluster.launch(simulated, replace(spec, workers=1), ignore)
    status, out, _ = run("destroy", f"{spec.name}-typo", "--yes")
    assert status == 0
    assert f"There is no cluster {spec.name}-typo in us-east-1; 0 resources left. There are: " in out
    assert spec.name in out.partition("There are: ")[2]
    cluster.destroy(simulated, spec.name, ignore)


def test_taking_workers_away_offers_nothing_about_buying(alone: Run) -> None:
    _, out, _ = alone("remove-slaves", "--help")
    bought = (
        "--spot-price",
        "--fallback",
        "--instance-type",
        "--ami",
        "--user-data",
        "--ebs-vol-size",
        "--zone",
    )
    assert not [option for option in bought if option in out]
    assert all(option in out for option in ("--num-slaves", "--identity-file", "--yes"))
    assert alone("remove-slaves", "--spot-price", "1")[0] == 2
