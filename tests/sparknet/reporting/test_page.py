"""The page itself: its HTML, its parts, and that the one that is served and the report are the same."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from sparknet.reporting.curves import charts
from sparknet.reporting.drawing import svg, thinned
from sparknet.reporting.page import fragments, render
from sparknet.reporting.roster import WorkerRow
from sparknet.reporting.run import CLUSTER, Cluster, Run
from tests.sparknet.reporting.rounds import made_record, made_run, made_usage

# The HTML standard, 13.1.2: elements that have no end tag.
VOID = {"meta", "link", "input", "br", "hr", "img"}
FOCUSABLE = {"a", "input", "summary", "button"}


class Elements(HTMLParser):
    """The elements of a page; ``wrong`` are end tags that close nothing, and what is left open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(page)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}"
        self.all.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def of(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.all if name in attrs]


def live() -> Run:
    return made_run(is_over=False)


def empty() -> Run:
    return Run(title="net", settings={}, records=[], is_over=False)


PAGES = {
    "live": render(live(), live=True),
    "before the first round": render(empty(), live=True),
    "report": render(made_run()),
    "failed": render(made_run(failure="the loss is no longer a number")),
}


@pytest.mark.parametrize("name", PAGES)
def test_every_element_is_closed_where_it_was_opened(name: str) -> None:
    assert Elements(PAGES[name]).wrong == []


@pytest.mark.parametrize("name", PAGES)
def test_an_id_is_given_once_and_what_names_one_finds_it(name: str) -> None:
    elements = Elements(PAGES[name])
    ids = Counter(elements.of("id"))
    assert [each for each, count in ids.items() if count > 1] == []
    named = [*elements.of("aria-labelledby"), *(link[1:] for link in elements.of("href") if link[:1] == "#")]
    named += re.findall(r"url\(#([^)]*)\)", PAGES[name])
    assert [each for each in named if each not in ids] == []


@pytest.mark.parametrize("name", PAGES)
def test_nothing_in_the_page_is_styled_or_scripted_in_its_markup(name: str) -> None:
    elements = Elements(PAGES[name])
    assert elements.of("style") == []
    assert [attribute for _, attrs in elements.all for attribute in attrs if attribute.startswith("on")] == []


@pytest.mark.parametrize("name", PAGES)
def test_no_address_elsewhere_is_in_the_page(name: str) -> None:
    assert re.findall(r"https?://|//[a-z]+\.|@import", PAGES[name].replace("// ", "")) == []


@pytest.mark.parametrize("name", PAGES)
def test_headings_go_down_a_step_at_a_time(name: str) -> None:
    levels = [int(tag[1]) for tag, _ in Elements(PAGES[name]).all if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_keyboard_reaches_the_parts_in_the_order_in_which_they_are_read() -> None:
    reached = [
        attrs.get("data-chart") or attrs.get("aria-label") or attrs.get("id") or attrs.get("href") or tag
        for tag, attrs in Elements(PAGES["report"]).all
        if (tag in FOCUSABLE or attrs.get("tabindex") == "0") and attrs.get("tabindex") != "-1"
    ]
    of_charts = [
        name for chart in charts(made_run()) for name in (chart.key, "summary", f"{chart.title}, the table")
    ]
    assert reached == ["#content", *of_charts, "Workers, the table", "events"]
    assert not [value for value in Elements(PAGES["report"]).of("tabindex") if int(value) > 0]


def test_the_report_is_the_page_with_its_data_inside() -> None:
    run = made_run()
    served, left = render(run, live=True), render(run)
    for text in (served, left):
        assert all(str(part) in text for name, part in fragments(run).items() if name != "title")
    body = re.compile(r"<header>.*</main>", re.DOTALL)
    assert body.findall(served) == body.findall(left)


def test_fragments_are_the_insides_of_elements_of_their_names() -> None:
    ids = set(Elements(PAGES["live"]).of("id"))
    assert set(fragments(live())) - {"title"} <= ids


def test_the_report_lets_nothing_run_or_be_fetched_but_its_own() -> None:
    page = PAGES["report"]
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    inside = {name: re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL) for name in ("style", "script")}
    digests = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, (text,) in inside.items()
    }
    assert html.unescape(policy) == (
        f"default-src 'none'; style-src 'sha256-{digests['style']}'; script-src 'sha256-{digests['script']}'"
    )


def test_every_curve_is_also_a_table() -> None:
    page = PAGES["report"]
    for chart in charts(made_run()):
        rows = re.search(rf'id="rows-{chart.key}">(.*?)</tbody>', page, re.DOTALL)
        assert rows
        assert rows[1].count("<tr>") == len(chart.rows) > 0


def test_the_table_of_a_long_run_has_some_of_its_rounds_and_the_last() -> None:
    run = made_run(records=[made_record(number, 12_345) for number in range(1, 12_346)])
    for chart in charts(run):
        assert len(chart.rows) <= 101
        assert chart.rows[-1][0] in (12_345, 12_344)


def test_a_worker_has_its_state_shard_processor_memory_spill_network_and_gpu() -> None:
    usage = made_usage(spilled_bytes=3 << 30)
    row = WorkerRow(
        number=3, state="lost", name="worker 3", round=7, shard=3, seconds=1.5, data_seconds=0.0, usage=usage
    )
    text = re.sub(r"<[^>]*>", " ", fragments(made_run(workers=[row]))["workers"])
    words = " ".join(text.split())
    assert words == (
        "3 ip-10-0-0-7 lost 3 12,500 records 7 1.50 s 3.2 cores machine 85% of 4 2.0 GiB "
        "machine 38% of 16.0 GiB 3.0 GiB 90.0 GiB free in 1.9 MiB/s out 976.6 KiB/s "
        "87% 4.0 GiB of 22.0 GiB, NVIDIA L4"
    )


def test_a_worker_that_has_not_told_of_its_machine_has_a_row_all_the_same() -> None:
    row = WorkerRow(number=0, state="slow", name="", round=1, shard=0, seconds=1.5, data_seconds=0.5)
    assert "slow" in fragments(made_run(workers=[row], is_over=False))["workers"]


def test_events_are_told_with_their_kind_the_newest_first() -> None:
    kinds = re.findall(r'class="state (\w+)"', fragments(made_run())["events"])
    assert kinds == ["straggler", "lost", "joined"]


def test_the_cost_is_that_of_the_machines_for_as_long_as_the_run_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = '{"name": "demo", "region": "us-east-1", "machines": {"g6.xlarge, spot": 4}, "per_hour": 60.0}'
    monkeypatch.setenv(CLUSTER, told)
    rows = fragments(made_run(cluster=Cluster.from_environment()))["machines"]
    assert "demo in us-east-1" in rows
    assert "g6.xlarge, spot" in rows
    assert "about $60.00 an hour" in rows
    assert "about $0.50" in rows  # 30 seconds


@pytest.mark.parametrize("told", ["", "{", '{"nonsense": 1}', "[]"])
def test_a_description_of_machines_that_cannot_be_read_is_none(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CLUSTER, told)
    assert Cluster.from_environment() is None


def test_a_loss_that_is_not_a_number_is_a_gap() -> None:
    records = [made_record(number, loss=None if number == 4 else 1.0) for number in range(1, 8)]
    chart = charts(made_run(records=records))[0]
    assert [number for number, _ in chart.rows] == [1, 2, 3, 5, 6, 7]
    assert svg(chart)


def test_a_long_curve_keeps_its_spikes() -> None:
    points = [(number, 100.0 if number == 7_777 else 1.0) for number in range(10_000)]
    kept = thinned(points)
    assert len(kept) <= 400
    assert (7_777, 100.0) in kept


def test_what_a_live_page_says_is_left_is_by_the_pace_of_its_last_rounds() -> None:
    records = [made_record(number, 20) for number in range(1, 11)]
    text = fragments(replace(live(), records=records))["figures"]
    assert re.search(r"Left, about</dt><dd>00:30", text)
