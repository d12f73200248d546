"""The documentation as a site: built without a warning, nothing fetched from elsewhere, no dead link."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).resolve().parent.parent
FETCHED = {"img": "src", "link": "href", "script": "src", "iframe": "src", "source": "src"}


class Links(HTMLParser):
    """What a page fetches, where it leads, and the places in it that have a name."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.leads: list[str] = []
        self.names: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if tag in FETCHED and told.get(FETCHED[tag]):
            self.fetched.append(told[FETCHED[tag]])
        if tag == "a" and told.get("href"):
            self.leads.append(told["href"])
        self.names |= {told[name] for name in ("id", "name") if name in told}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Links]:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", ".mkdocs.yml"]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [*command, "--site-dir", target], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert built.stderr == ""
    return {page: Links(page) for page in target.rglob("*.html")}


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(site: dict[Path, Links]) -> None:
    fetched = {url for links in site.values() for url in links.fetched}
    assert fetched
    assert not [url for url in fetched if "//" in url]


@pytest.mark.slow
def test_every_link_leads_to_a_page_and_a_place_in_it(site: dict[Path, Links]) -> None:
    lost = []
    for page, links in site.items():
        for url in links.leads:
            if "//" in url or page.name == "404.html" or url.startswith("mailto:"):
                continue
            path, name = urldefrag(url)
            aim = (page.parent / unquote(path)).resolve() if path else page
            is_there = aim.exists() and (not name or aim not in site or unquote(name) in site[aim].names)
            if not is_there:
                lost.append((page.name, url))
    assert len(site) > 20
    assert lost == []
