"""The site builds, without a warning: no link is dead, and no page of it needs a network when it is read."""

from __future__ import annotations

import re
import time
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser

ROOT = Path(__file__).parents[2]
FOUND = "[...document.querySelectorAll('.md-search-result__link')].map(link => link.pathname)"
# What a browser fetches by itself.
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mkdocs.commands.build import build
        from mkdocs.config import load_config

        folder = tmp_path_factory.mktemp("site")
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    return folder


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name == FETCHED.get(tag) and value]


def test_it_builds_strictly_and_has_every_page(site: Path):
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")}
    assert pages
    assert [str(page) for page in pages if not (site / page).exists()] == []


def test_every_page_is_in_the_navigation(site: Path):
    home = (site / "index.html").read_text(encoding="utf-8")
    linked = set(re.findall(r'<a href="([^"#]+\.html)" class="md-nav__link', home))
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= linked


def test_no_page_fetches_anything_from_elsewhere(site: Path):
    for page in site.rglob("*.html"):
        addresses = _Addresses()
        addresses.feed(page.read_text(encoding="utf-8"))
        assert addresses.found
        assert [each for each in addresses.found if re.match(r"(https?:)?//", each)] == [], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet.name


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_it_is_searched_without_a_server_and_without_a_network(site: Path):
    with Browser() as browser:
        page = browser.open(site / "how-to" / "explain.html")
        page.evaluate("document.querySelector('[data-md-component=search-query]').focus()")
        page.call("Input.insertText", text="half-open")
        deadline = time.monotonic() + 20
        while not (found := page.evaluate(FOUND)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert any(each.endswith("/operators.html") for each in found)
        assert [each for each in page.requests if not each.startswith(("file:", "data:"))] == []
        assert page.console == []


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("name", ["operators.html", "reference/tables.html", "reference/configuration.html"])
def test_the_tables_of_the_reference_are_seen_whole(site: Path, name: str):
    with Browser() as browser:
        page = browser.open(site / name, width=1440)
        wider = "[...document.querySelectorAll('.md-typeset__scrollwrap')].filter(e => e.scrollWidth > e.clientWidth)"
        assert page.evaluate(f"{wider}.map(e => e.innerText.slice(0, 80))") == []
