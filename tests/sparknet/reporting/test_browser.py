"""The page in headless Chromium: it follows a run, asks nobody else, and axe-core finds nothing.

Needs Chromium and a folder with the npm packages playwright-core and axe-core, named by ``SPARKNET_BROWSER``:

    apt-get install chromium; npm install --prefix browser playwright-core axe-core
    SPARKNET_BROWSER=browser/node_modules pytest tests/sparknet/reporting/test_browser.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sparknet.reporting import report
from sparknet.reporting.address import PAGE, Address
from sparknet.reporting.curves import charts
from sparknet.reporting.live import LivePage
from tests.sparknet.reporting.rounds import made_record, made_run

MODULES = os.environ.get("SPARKNET_BROWSER", "")
CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="there is no chromium"),
    pytest.mark.skipif(not shutil.which("node"), reason="there is no node"),
    pytest.mark.skipif(not MODULES, reason="SPARKNET_BROWSER names no playwright-core and axe-core"),
]


def opened(url: str) -> dict[str, Any]:
    script = Path(__file__).with_name("browser.mjs")
    ran = subprocess.run(
        ["node", str(script), url, str(Path(MODULES).resolve())],
        env={**os.environ, "CHROMIUM": CHROMIUM or ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def check(found: dict[str, Any]) -> None:
    """What is asked of the page while it is served, and of the report."""
    assert found["findings"] == []
    assert found["overflow"] == [0, 0, 0, 0]
    assert found["said"] == []
    reached = list(dict.fromkeys(name for name in found["focus"] if name != "body"))  # until it comes round
    in_order = [chart.key for chart in charts(made_run()) if chart.key in reached]
    assert [name for name in reached if name in in_order] == in_order
    assert reached[0] == "a"  # past everything, to the curves
    assert {"Workers, the table", "events"} <= set(reached)
    assert found["round"]
    assert found["slider"].startswith(found["round"])


def test_the_report_is_without_a_finding(tmp_path: Path) -> None:
    found = opened(report.write(tmp_path, made_run()).as_uri())
    check(found)
    assert {chart.key for chart in charts(made_run())} <= set(found["focus"])
    assert found["slider"] == "round 9: 1.8500"
    assert found["hosts"] == [""]


def test_the_live_page_follows_the_run_and_asks_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv(PAGE, str(tmp_path / "page"))
    page = LivePage(made_run(records=[], is_over=False), Address.of(None), tell=print)
    ended = threading.Event()

    def train() -> None:
        for number in range(1, 10):
            page.take(made_record(number), lambda: made_run().workers)
            time.sleep(0.5 if number < 8 else 10)
        ended.wait()

    driver = threading.Thread(target=train)
    driver.start()
    try:
        while not (tmp_path / "page").exists():
            time.sleep(0.05)
        url = (tmp_path / "page").read_text().strip()
        found = opened(url)
    finally:
        ended.set()
        driver.join()
        page.close()
    check(found)
    assert set(found["hosts"]) == {url.split("/")[2]}
