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
# Texts of one drawing that lie on each other, beyond the edges of their letters.
OVERLAPPING = """
[...document.querySelectorAll("svg")].flatMap(svg => {
  const texts = [...svg.querySelectorAll("text")].filter(e => e.textContent.trim() && e.textContent !== "★");
  const boxes = texts.map(e => e.getBoundingClientRect());
  return texts.flatMap((e, i) => texts.slice(i + 1).flatMap((other, j) => {
    const [a, b] = [boxes[i], boxes[i + 1 + j]];
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    return across > 1 && down > 4 ? [[e.textContent, other.textContent]] : [];
  }));
})
"""
# Texts that reach out of their drawing, where they are cut off.
CUT_OFF = """
[...document.querySelectorAll("svg")].flatMap(svg => {
  const edge = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && (box.left < edge.left - 1 || box.right > edge.right + 1);
  }).map(e => e.textContent);
})
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
    assert page.evaluate(OVERLAPPING) == []
    assert page.evaluate(CUT_OFF) == []
    assert page.evaluate("['header', 'main'].map(e => document.querySelectorAll(e).length)") == [1, 1]
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


def test_the_report_with_every_count_is_readable(browser: Browser, hospital: Hospital, tmp_path: Path):
    page = check(browser, hospital.store.report(suppress_below=0).save(tmp_path / "report.html"), dark=False)
    assert page.evaluate("document.querySelectorAll('.small').length") > 20


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


def test_what_a_table_is_of_can_be_read_on_a_phone_without_moving_it(browser: Browser, report: Path):
    page = browser.open(report, width=380)
    outside = "e => e.getBoundingClientRect().width && e.getBoundingClientRect().right > innerWidth"
    assert page.evaluate(f"[...document.querySelectorAll('caption > span, tr.of div')].filter({outside}).length") == 0
    assert page.evaluate("document.querySelectorAll('tr.of div').length") > 40


def test_a_chart_says_what_is_seen_in_it(browser: Browser, report: Path):
    says = browser.open(report).evaluate("[...document.querySelectorAll('[role=img]')].map(e => e.ariaLabel)")
    assert len(says) > 10
    assert all("; the most, " in each or each.endswith("; nothing that may be told") for each in says)


def test_nothing_empty_can_be_opened(browser: Browser, report: Path):
    opened = "[...document.querySelectorAll('details')].filter(e => !e.querySelector('tbody tr')).length"
    assert browser.open(report).evaluate(opened) == 0


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


def is_within_a_printed_page(browser: Browser, file: Path) -> bool:
    """Whether nothing on a page is wider than a sheet of A4 with margins of a centimetre."""
    page = browser.open(file, width=718)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    page.call("Emulation.setEmulatedMedia", media="print")
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_a_printed_report_is_not_cut_off(browser: Browser, hospital: Hospital, report: Path, tmp_path: Path):
    assert is_within_a_printed_page(browser, report)
    assert is_within_a_printed_page(browser, hospital.store.report(suppress_below=0).save(tmp_path / "report.html"))
