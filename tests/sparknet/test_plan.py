"""``sparknet plan``, as a user runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sparknet import cli
from sparknet.errors import UsageError

NET = """
name: "tiny"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 8 dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.cli, ["plan", *arguments])


def test_the_table_says_what_there_is_and_where_it_stops_scaling(tmp_path: Path) -> None:
    file = tmp_path / "plan.csv"
    options = "--megabytes 244 --step-time 2s --batch-size 256 --bandwidth 1gbit --tau 10,50 --workers 2..16"
    told = run(*options.split(), "--dollars-per-hour", "0.5", "--reclaims", "0.05/h", "--csv", str(file))
    assert told.exit_code == 0, told.output
    assert "average, star, float32, tau 50" in told.output
    assert "average, ring, float32, tau 10" in told.output
    assert "half of the machines' time is lost from 8 workers on" in told.output
    with file.open() as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 2 * 2 * 4
    assert {row["workers"] for row in rows} == {"2", "4", "8", "16"}
    assert all(float(row["dollars_an_epoch"]) > 0 for row in rows)


def test_a_step_of_a_net_is_timed_here_where_nobody_says_how_long_it_takes(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    told = run("--model", str(tmp_path / "net.prototxt"), "--workers", "2,3", "--exchange", "star")
    assert told.exit_code == 0, told.output
    assert "a step of 8 images takes" in told.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--megabytes 1 --step-time 2", "such as 50ms"),
        ("--megabytes 1 --step-time 1s --bandwidth fast", "such as 1gbit"),
        ("--megabytes 1 --step-time 1s --workers 0..4", "such as 4..1024"),
        ("--megabytes 1 --step-time 1s --workers 4,x", "such as 4..1024"),
        ("--megabytes 1 --step-time 1s --algorithm best", "is not one of"),
        ("--megabytes 1 --step-time 1s --tau 0", "a number, auto"),
        ("--megabytes 1 --step-time 1s --reclaims 3", "such as 0.05/h"),
    ],
)
def test_options_that_cannot_be_are_usage_errors(options: str, said: str) -> None:
    told = run(*options.split())
    assert told.exit_code == 2
    assert said in told.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--step-time 1s", "how large the net is"),
        ("--megabytes 1", "how long a step takes"),
        ("--megabytes 1 --step-time 1s --algorithm easgd --exchange ring", "star or auto"),
    ],
)
def test_what_is_missing_or_does_not_go_together_is_said(options: str, said: str) -> None:
    told = run(*options.split())
    assert isinstance(told.exception, UsageError)
    assert said in str(told.exception)
