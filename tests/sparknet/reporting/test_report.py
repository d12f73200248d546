from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sparknet.errors import TrainingError, UsageError
from sparknet.reporting import report
from sparknet.reporting.run import Run
from tests.sparknet.reporting.rounds import made_record, made_run


def run(*, synthetic: bool = False, tested: bool = True, title: str = "cifar10_quick") -> Run:
    records = [made_record(number, tested=tested, synthetic=synthetic) for number in range(1, 11)]
    return Run(title=title, settings={"tau": "10", "net": "<script>alert(1)</script>"}, records=records)


class References(HTMLParser):
    """Everything a page would fetch, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.texts: list[str] = []
        self._silent = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]
        self.fetched += [value for value in wanted if not value.startswith("#")]
        self.fetched += [tag] if tag in ("link", "iframe", "object") else []
        self._silent = tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        self.texts += [] if self._silent else [data]


def parsed(page: Path) -> References:
    references = References()
    references.feed(page.read_text())
    return references


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    page = report.write(tmp_path, made_run())
    assert parsed(page).fetched == []
    assert not re.search(r"url\((?!#)|@import|https?://", page.read_text())


def test_the_curves_are_pictures_in_the_page_and_one_is_beside_it(tmp_path: Path) -> None:
    text = report.write(tmp_path, run()).read_text()
    assert text.count("<svg") == 6
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_final_accuracy_and_where_the_time_went_are_shown(tmp_path: Path) -> None:
    text = " ".join(parsed(report.write(tmp_path, run())).texts)
    assert re.search(r"Test accuracy\s*50\.0 %", text)
    assert re.search(r"computing \(slowest worker\)\s*15\.0 s \(50 %\)", text)
    assert re.search(r"exchanging weights\s*4\.0 s \(13 %\)", text)
    assert re.search(r"starting workers\s*1\.0 s \(3 %\)", text)
    assert re.search(r"testing\s*1\.0 s \(3 %\)", text)
    assert re.search(r"all else\s*9\.0 s \(30 %\)", text)
    assert re.search(r"training images\s*20,000 \(1,053 a second\)", text)


def test_the_result_of_a_run_in_one_line() -> None:
    assert run().headline == "accuracy 50.0 % after 10 rounds, 00:30"
    assert run(tested=False).headline == "not tested after 10 rounds, 00:30"


def test_accuracy_on_drawn_pictures_says_so_wherever_it_is_shown(tmp_path: Path) -> None:
    text = report.write(tmp_path, run(synthetic=True)).read_text()
    named = re.findall(r"Test accuracy[^<\"]*", text)
    assert named
    assert all("synthetic data" in name for name in named)
    assert "50.0 % (synthetic data)" in text
    assert "synthetic" not in report.write(tmp_path, run()).read_text()


def test_text_from_outside_cannot_become_markup(tmp_path: Path) -> None:
    page = report.write(tmp_path, run(title="a <b> & c"))
    assert "<script>alert" not in page.read_text()
    assert "a <b> & c" in parsed(page).texts


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    first, second = (report.write(tmp_path, made_run()).read_bytes() for _ in range(2))
    assert first == second


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    failed = replace(run(), failure="the loss is no longer a number")
    assert "the loss is no longer a number" in parsed(report.write(tmp_path, failed)).texts


def test_a_run_without_a_round_is_nothing_to_report_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no round was completed"):
        report.write(tmp_path, Run(title="empty", settings={}, records=[]))


def test_a_report_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none/report\.html cannot be written: No such file"):
        report.write_page(tmp_path / "none" / "report.html", run())
