from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sparknet.errors import TrainingError
from sparknet.reporting import report
from sparknet.reporting.metrics import Record
from sparknet.reporting.report import Run
from tests.sparknet.reporting.rounds import made_round


def run(*, synthetic: bool = False, tested: bool = True, title: str = "cifar10_quick") -> Run:
    records = [
        Record.of(
            made_round(number, 10, accuracy=number / 20 if tested and number % 5 == 0 else None),
            elapsed_seconds=3.0 * number,
            synthetic=synthetic,
        )
        for number in range(1, 11)
    ]
    return Run(title=title, settings={"tau": "10", "net": "<script>alert(1)</script>"}, records=records)


class References(HTMLParser):
    """Everything a page would fetch, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]
        self.fetched += [value for value in wanted if not value.startswith("#")]
        self.fetched += [tag] if tag in ("script", "link", "iframe", "object") else []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parsed(page: Path) -> References:
    references = References()
    references.feed(page.read_text())
    return references


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    page = report.write(tmp_path, run())
    assert parsed(page).fetched == []
    assert not re.search(r"url\((?!#)|@import", page.read_text())


def test_the_curve_is_a_picture_in_the_page_and_beside_it(tmp_path: Path) -> None:
    text = report.write(tmp_path, run()).read_text()
    svg = text[text.index("<svg") : text.index("</svg>") + 6]
    assert len(list(ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"))) > 3
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_final_accuracy_and_where_the_time_went_are_shown(tmp_path: Path) -> None:
    text = " ".join(parsed(report.write(tmp_path, run())).texts)
    assert "accuracy 50.0 % after 10 rounds, 00:30" in text
    assert re.search(r"computing \(slowest worker\)\s*15\.0 s \(50 %\)", text)
    assert re.search(r"exchanging weights\s*4\.0 s \(13 %\)", text)
    assert re.search(r"starting workers\s*1\.0 s \(3 %\)", text)
    assert re.search(r"testing\s*1\.0 s \(3 %\)", text)
    assert re.search(r"all else\s*9\.0 s \(30 %\)", text)
    assert re.search(r"training images\s*20,000 \(1,053 a second\)", text)


def test_accuracy_on_drawn_pictures_says_so_wherever_it_is_shown(tmp_path: Path) -> None:
    texts = parsed(report.write(tmp_path, run(synthetic=True))).texts
    shown = [text for text in texts if "accuracy" in text.lower() and "%" in text]
    assert len(shown) >= 2
    assert all("synthetic data" in text for text in shown)
    assert any("50.0 % (synthetic data)" in text for text in texts)


def test_accuracy_on_real_pictures_does_not_say_so(tmp_path: Path) -> None:
    assert "synthetic" not in report.write(tmp_path, run()).read_text()


def test_text_from_outside_cannot_become_markup(tmp_path: Path) -> None:
    page = report.write(tmp_path, run(title="a <b> & c"))
    assert "<script>" not in page.read_text()
    assert "a <b> & c" in parsed(page).texts


def test_a_run_without_tests_has_a_curve_all_the_same(tmp_path: Path) -> None:
    text = " ".join(parsed(report.write(tmp_path, run(tested=False))).texts)
    assert "not tested after 10 rounds" in text


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    first, second = (report.write(tmp_path, run()).read_bytes() for _ in range(2))
    assert first == second


def test_a_run_without_a_round_is_nothing_to_report_on() -> None:
    with pytest.raises(TrainingError, match="no round was completed"):
        Run(title="empty", settings={}, records=[])
