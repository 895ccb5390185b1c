"""The pages in a real browser: nothing goes wrong, nothing is asked of anybody, all is reached by keyboard and readable."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from browser import Browser, Page
from hospital import Hospital

# The contrast of every text with what lies behind it, as WCAG 2.1 computes it; given back are those below AA.
UNREADABLE = """
(() => {
  const channels = color => (color.match(/[\\d.]+/g) || []).map(Number);
  const luminance = color => {
    const [r, g, b] = channels(color).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!(channels(color).length === 4 && channels(color)[3] === 0)) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].filter(n => n.nodeType === 3 && n.textContent.trim());
    if (!own.length || element.tagName === "title") continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const color = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [high, low] = [luminance(color), luminance(behind(element))].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < (large ? 3 : 4.5)) found.push([element.tagName, own[0].textContent.trim(), color, ratio]);
  }
  return found;
})()
"""
REACHABLE = "[...document.querySelectorAll('a[href], summary, [tabindex=\"0\"]')].filter(e => e.checkVisibility())"
UNNAMED = """
[...document.querySelectorAll('[role=img], [role=region], nav')]
  .filter(e => !(e.ariaLabel || e.ariaLabelledByElements)).map(e => e.outerHTML.slice(0, 200))
"""
HEADINGS = "[...document.querySelectorAll('h1, h2, h3, h4')].map(e => Number(e.tagName[1]))"
SHOWN = "[...document.querySelectorAll('nav, details')].filter(e => getComputedStyle(e).display !== 'none').length"


@pytest.fixture(scope="module")
def report(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hospital.store.report().save(tmp_path_factory.mktemp("page") / "report.html")


def check(browser: Browser, file: Path, *, dark: bool) -> Page:
    """What holds for every page."""
    page = browser.open(file, dark=dark)
    assert page.console == []
    assert page.requests == [file.as_uri()]
    assert page.evaluate("window.hacked") is None
    assert page.evaluate(UNREADABLE) == []
    assert page.evaluate(UNNAMED) == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is not dark
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    levels = page.evaluate(HEADINGS)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    return page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_report_is_quiet_alone_and_readable(browser: Browser, report: Path, dark: bool):
    check(browser, report, dark=dark)


def test_everything_is_reached_by_keyboard(browser: Browser, report: Path):
    page = browser.open(report)
    number = page.evaluate(f"{REACHABLE}.length")
    reached = []
    for _ in range(number):
        page.press_tab()
        reached.append(page.evaluate(f"{REACHABLE}.indexOf(document.activeElement)"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert number > 30
    assert reached == list(range(number))


def test_a_phone_shows_all_of_it(browser: Browser, report: Path):
    page = browser.open(report, width=380)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_was_opened_is_printed_and_nothing_to_click_on(browser: Browser, report: Path):
    page = browser.open(report)
    page.evaluate("document.querySelector('details').open = true")
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.evaluate(SHOWN) == 1


def test_even_what_would_slip_through_can_do_nothing(browser: Browser, report: Path, tmp_path: Path):
    slipped = tmp_path / "slipped.html"
    hostile = "<script>window.hacked=1</script><img src='http://127.0.0.1:9/'><style>body{display:none}</style><main"
    slipped.write_text(report.read_text().replace("<main", hostile, 1))
    page = browser.open(slipped)
    assert page.requests == [slipped.as_uri()]
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("getComputedStyle(document.body).display") == "block"
    assert len(page.console) == 3  # each was refused, and it was said
