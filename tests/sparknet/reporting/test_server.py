"""The live page over HTTP: who may see it, and what its readers are sent."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sparknet.reporting.address import PAGE, Address
from sparknet.reporting.board import Board
from sparknet.reporting.live import LivePage, Page
from sparknet.reporting.metrics import line_of
from sparknet.reporting.page import POLICY
from sparknet.reporting.run import Run
from sparknet.reporting.server import LOOPBACK, Server
from tests.sparknet.reporting.rounds import made_record, made_run

TOKEN = "a-token"
SECONDS = 30.0


@pytest.fixture
def board() -> Board:
    board = Board()
    board.take({"run": {"title": "cifar10_quick", "settings": {"tau": "10"}, "versions": {}}})
    threading.Thread(target=board.draw_forever, daemon=True).start()
    return board


@pytest.fixture
def server(board: Board) -> Iterator[Server]:
    with Server(board, TOKEN) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def tell(board: Board, number: int, **changes: Any) -> None:
    board.take({"record": json.loads(line_of(made_record(number, 100, **changes)))})


def get(port: int, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=SECONDS)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


class Reader:
    """A browser that follows a page: ``next`` is its next event, (kind, id, data)."""

    def __init__(self, port: int, token: str = TOKEN, last: str = "") -> None:
        self.connection = http.client.HTTPConnection(LOOPBACK, port, timeout=SECONDS)
        self.connection.request("GET", f"/{token}/events", headers={"Last-Event-ID": last} if last else {})
        self.answer = self.connection.getresponse()
        assert self.answer.headers["Content-Type"].startswith("text/event-stream")

    def next(self) -> tuple[str, str, dict[str, str]] | None:
        """None at the end of the stream."""
        fields: dict[str, str] = {}
        while line := self.answer.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if line == "\n" and "event" in fields:
                return fields["event"], fields["id"], json.loads(fields["data"])
            fields = {} if line == "\n" else {**fields, name: value}
        return None

    def until(self, number: int) -> str:
        """Read until the page shows round ``number``; the id of that event."""
        while event := self.next():
            kind, identity, fragments = event
            if kind == "fragments" and fragments.get("title", "").startswith(f"{number}/"):
                return identity
        raise AssertionError(f"the stream ended before round {number}")

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


# -- who may see it ----------------------------------------------------------------------------------------


def test_it_listens_on_the_loopback_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.1:8080", "localhost", "localhost:1", "[::1]:8080"])
def test_a_browser_of_this_machine_sees_the_page(name: str, server: Server) -> None:
    status, text, _ = get(server.port, f"/{TOKEN}/", Host=name)
    assert status == 200
    assert "<h1>cifar10_quick</h1>" in text


@pytest.mark.parametrize("name", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "::1"])
def test_a_name_that_was_made_to_lead_here_does_not(name: str, server: Server) -> None:
    for path in ("", "events", "about", "page.js"):
        status, text, _ = get(server.port, f"/{TOKEN}/{path}", Host=name)
        assert (status, "cifar10" in text) == (421, False)


@pytest.mark.parametrize(
    "path", ["/", "/favicon.ico", "/a-toke/", "/a-token2/", "//", f"/{TOKEN}/../../etc/passwd", "/\u00e9/"]
)
def test_whoever_does_not_know_the_token_sees_nothing(path: str, server: Server) -> None:
    with socket.create_connection((LOOPBACK, server.port), timeout=SECONDS) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.0 404")
    assert b"cifar10" not in answer


@pytest.mark.parametrize("path", ["", "events", "about", "page.css", "page.js", "icon.svg", "none"])
def test_every_answer_has_the_policy_and_is_not_kept(path: str, server: Server, board: Board) -> None:
    board.end()
    status, _, headers = get(server.port, f"/{TOKEN}/{path}")
    assert status == (404 if path == "none" else 200)
    assert headers["Content-Security-Policy"] == POLICY
    assert POLICY.startswith("default-src 'self'; ")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


def test_the_page_says_which_run_it_is(server: Server, board: Board) -> None:
    tell(board, 7)
    said = json.loads(get(server.port, f"/{TOKEN}/about")[1])
    assert said == {"title": "cifar10_quick", "round": 7, "rounds": 100, "is_over": False}


def test_a_port_that_is_taken_is_replaced_by_a_free_one(board: Board) -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        taken = other.getsockname()[1]
        with Server(board, TOKEN, taken) as server:
            assert server.port not in (0, taken)


# -- what readers are sent ---------------------------------------------------------------------------------


def test_a_round_reaches_the_reader_within_two_seconds(server: Server, board: Board) -> None:
    reader, took = Reader(server.port), []
    tell(board, 1)
    reader.until(1)  # what draws is loaded by then
    for number in range(2, 6):
        started = time.monotonic()
        tell(board, number)
        reader.until(number)
        took.append(time.monotonic() - started)
    assert min(took) < 2  # of several: the machine may be busy with something else
    reader.close()


def test_only_what_has_changed_is_sent(server: Server, board: Board) -> None:
    reader = Reader(server.port)
    first = reader.next()
    assert first
    assert {"settings", "plot-loss", "workers"} <= first[2].keys()
    tell(board, 1)
    second = reader.next()
    assert second
    assert {"title", "figures", "plot-loss", "rows-loss"} <= second[2].keys()
    assert {"settings", "versions", "workers"}.isdisjoint(second[2])
    reader.close()


def test_a_reader_that_comes_back_is_sent_what_it_has_missed(server: Server, board: Board) -> None:
    reader = Reader(server.port)
    tell(board, 1)
    seen = reader.until(1)
    reader.close()
    tell(board, 2, lost=("worker 1: the connection was lost",))
    again = Reader(server.port, last=seen)
    event = again.next()
    assert event
    assert event[2]["title"].startswith("2/")
    assert "the connection was lost" in event[2]["events"]
    assert "settings" not in event[2]
    again.close()


@pytest.mark.parametrize("last", ["0badc0de-99", "nonsense", "-", "99"])
def test_a_reader_of_another_server_is_sent_everything(last: str, server: Server) -> None:
    reader = Reader(server.port, last=last)
    event = reader.next()
    assert event
    assert {"settings", "title", "plot-loss"} <= event[2].keys()
    reader.close()


def test_many_readers_see_the_same(server: Server, board: Board) -> None:
    readers = [Reader(server.port) for _ in range(40)]
    tell(board, 3)
    assert len({reader.until(3) for reader in readers}) == 1
    for reader in readers:
        reader.close()


def test_more_readers_than_may_be_are_told_so(server: Server) -> None:
    readers = [Reader(server.port) for _ in range(64)]
    status, text, _ = get(server.port, f"/{TOKEN}/events")
    assert (status, text) == (503, "64 readers are here already.\n")
    for reader in readers:
        reader.close()


def test_nothing_is_drawn_where_nobody_looks(board: Board) -> None:
    for number in range(1, 50):
        tell(board, number)
    time.sleep(0.3)
    assert board.since(0, 0.0) is None  # asked now, nothing was there yet


def test_a_reader_that_takes_nothing_holds_nobody_up(server: Server, board: Board) -> None:
    stuck = socket.create_connection((LOOPBACK, server.port), timeout=SECONDS)
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.sendall(f"GET /{TOKEN}/events HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
    reader = Reader(server.port)
    longest = 0.0
    for number in range(1, 101):
        started = time.perf_counter()
        tell(board, number, lost=("worker 1: " + "x" * 20_000,))
        longest = max(longest, time.perf_counter() - started)
    reader.until(100)
    assert longest < 1
    reader.close()
    stuck.close()


def test_the_end_of_a_run_is_the_end_of_the_stream(server: Server, board: Board) -> None:
    reader = Reader(server.port)
    tell(board, 1)
    reader.until(1)
    board.take({"over": {"failure": ""}})
    board.end()
    events = list(iter(reader.next, None))
    assert [kind for kind, _, _ in events][-1:] == ["over"]
    assert "Ended" in "".join(fragments.get("state", "") for _, _, fragments in events)
    reader.close()


# -- the driver's end --------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv(PAGE, raising=False)
    return tmp_path


class Told(list[str]):
    """What the user is told; ``url`` waits for the address."""

    @property
    def url(self) -> str:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if found := [text for text in self if "http://" in text]:
                return found[-1].partition(": ")[2]
            time.sleep(0.02)
        raise AssertionError("nobody said where the page is")

    @property
    def port(self) -> int:
        return int(self.url.split("/")[2].partition(":")[2])

    @property
    def token(self) -> str:
        return self.url.split("/")[3]


def opened(told: Told, run: str | None = None, **changes: Any) -> LivePage:
    values: dict[str, Any] = {"records": [], "is_over": False, **changes}
    return LivePage(made_run(**values), Address.of(run), tell=told.append)


def test_rounds_reach_the_browser_by_way_of_the_process(state: Path) -> None:
    told = Told()
    page = opened(told)
    reader = Reader(told.port, told.token)
    page.take(made_record(4), lambda: made_run().workers)
    reader.until(4)
    page.close(made_run().workers)
    events = list(iter(reader.next, None))
    assert events[-1][0] == "over"
    assert told == [f"live page: {told.url}"]
    with pytest.raises(OSError, match="refused"):
        get(told.port, "/")
    reader.close()


def test_the_page_shows_the_rounds_of_before(state: Path) -> None:
    told = Told()
    page = opened(told, records=[made_record(number) for number in range(1, 6)])
    text = get(told.port, f"/{told.token}/")[1]
    assert 'data-round="1"' in text
    assert 'data-round="5"' in text
    page.close()


def test_the_next_driver_of_a_run_has_its_address(state: Path) -> None:
    first, second, other = Told(), Told(), Told()
    opened(first, "/data/run").close()
    assert first.url
    opened(second, "/data/run").close()
    opened(other, "/data/another").close()
    assert second.url == first.url
    assert other.token != first.token
    (kept, *_) = (state / "state" / "sparknet" / "pages").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_browser_goes_on_with_the_next_driver(state: Path) -> None:
    told, again = Told(), Told()
    first = opened(told, "/data/run")
    reader = Reader(told.port, told.token)
    first.take(made_record(1), tuple)
    seen = reader.until(1)
    first.close()
    second = opened(again, "/data/run", records=[made_record(1)])
    assert again.url == told.url
    back = Reader(again.port, again.token, last=seen)
    second.take(made_record(2), tuple)
    back.until(2)
    second.close()
    for each in (reader, back):
        each.close()


def test_the_address_is_written_where_the_environment_says(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = state / "job" / "page"
    monkeypatch.setenv(PAGE, str(file))
    told = Told()
    page = opened(told)
    deadline = time.monotonic() + SECONDS
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    page.close()
    assert file.read_text().startswith("http://127.0.0.1:")
    assert file.stat().st_mode & 0o777 == 0o600
    assert told == []


def test_a_wanted_port_that_is_taken_is_said(state: Path) -> None:
    told = Told()
    with socket.create_server((LOOPBACK, 0)) as other:
        taken = other.getsockname()[1]
        LivePage(made_run(records=[]), Address.of(None, taken), tell=told.append).close()
    assert told[0] == f"port {taken} of this machine is taken"


def test_a_page_whose_process_is_killed_does_not_end_the_run(state: Path) -> None:
    told = Told()
    page = opened(told)
    assert told.url
    assert page._process
    page._process.kill()
    for number in range(1, 200):
        page.take(made_record(number, 200), tuple)
    page.close()
    assert told[-1] == "there is no live page any more (it was ended); training goes on"


def test_a_round_costs_the_driver_next_to_nothing(state: Path) -> None:
    page = opened(Told())
    record = made_record(1)
    started = time.perf_counter()
    for _ in range(1000):
        page.take(record, tuple)
    assert (time.perf_counter() - started) / 1000 < 1e-3
    page.close()


DRIVER = """
import sys, time
from sparknet.reporting.address import Address
from sparknet.reporting.live import LivePage
from tests.sparknet.reporting.rounds import made_record, made_run
run = made_run(records=[], is_over=False)
page = LivePage(run, Address.of(None), tell=lambda text: print(text, flush=True))
page.take(made_record(1), tuple)
time.sleep(60)
"""


@pytest.mark.parametrize("ended", [signal.SIGKILL, signal.SIGTERM])
def test_a_driver_that_is_killed_takes_its_page_along(ended: signal.Signals, state: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as driver:
        assert driver.stdout
        told = Told([driver.stdout.readline().strip()])
        reader = Reader(told.port, told.token)
        reader.until(1)
        driver.send_signal(ended)
        events = list(iter(reader.next, None))
        reader.close()
    said = "".join(fragments.get("failure", "") for _, _, fragments in events)
    assert "The driver ended before the run was over" in said
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((LOOPBACK, told.port), timeout=SECONDS).close()
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError("the page outlives its driver")


@pytest.mark.parametrize(
    ("asked", "page"),
    [
        (False, None),
        (True, Page()),
        ("run.html", Page(file=Path("run.html"))),
        (Path("run.html"), Page(file=Path("run.html"))),
        (Page(port=6006), Page(port=6006)),
    ],
)
def test_what_a_trainer_may_be_asked_for(asked: Any, page: Page | None) -> None:
    assert Page.of(asked) == page


def test_what_is_said_of_a_run_arrives_whole() -> None:
    board, run = Board(), made_run(is_over=False)
    board.take({"run": {"title": run.title, "settings": dict(run.settings), "versions": dict(run.versions)}})
    for record in run.records:
        board.take({"record": json.loads(line_of(record))})
    board.take({"workers": json.loads(json.dumps([asdict(row) for row in run.workers]))})
    shown = board.run
    assert Run(**{**vars(shown), "records": list(shown.records), "workers": list(shown.workers)}) == run
