"""The report in a real browser: what a person sees, clicks, types and points at."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import chromium
import pytest
import report_store

from experiments.cli import status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(chromium.find() is None, reason="Chromium is not installed")

CONTRAST = """
(() => {
  const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = (c) => { const [r, g, b] = c.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (let n = e; n; n = n.parentElement) { const c = parse(getComputedStyle(n).backgroundColor); if (c.length && (c.length < 4 || c[3] > 0)) return c.slice(0, 3); } return [255, 255, 255]; };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || ['SCRIPT', 'STYLE', 'NOSCRIPT', 'TITLE', 'title'].includes(e.tagName) || e.closest('noscript') || !e.getClientRects().length) continue;
    const look = getComputedStyle(e);
    const [a, b] = [light(parse(e instanceof SVGElement ? look.fill : look.color).slice(0, 3)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${e.tagName} ${e.textContent.slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return poor;
})()
"""  # noqa: E501
"""Texts whose contrast is below 4.5, by the formula of WCAG 2."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of four real runs and a hostile one."""
    folder = tmp_path_factory.mktemp("report")
    store = report_store.make(folder / "store")
    report_store.forge(store, policy=report_store.HOSTILE, seed=0, step_s=0.001)
    out = folder / "report.html"
    assert status(["report", str(store.folder), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def window() -> Iterator[chromium.Browser]:
    """A browser for all tests of this module."""
    with chromium.Browser() as browser:
        yield browser


@pytest.fixture
def shown(window: chromium.Browser, page: Path) -> Iterator[chromium.Browser]:
    """The page, opened anew; whatever a test does, nothing complains and nothing is asked for."""
    window.requests.clear()
    window.complaints.clear()
    window.open(page)
    yield window
    window.run("1")  # fetches what the browser still has to say
    assert window.complaints == []
    assert window.requests == [page.resolve().as_uri()]


def column(browser: chromium.Browser, title: str) -> list[float]:
    """Return the numbers of a column of the table of runs, as they are on the page."""
    return browser.run(
        "(() => { const t = document.querySelector('#table');"
        "const at = [...t.tHead.rows[0].cells].findIndex("
        f"(c) => c.textContent === {title!r});"
        "return [...t.tBodies[0].rows].filter((r) => !r.hidden)"
        ".map((r) => Number(r.cells[at].dataset.v)); })()"
    )


def header(browser: chromium.Browser, title: str) -> str:
    """Return the selector of a header's button."""
    at = browser.run(
        "[...document.querySelectorAll('#table thead th')]"
        f".findIndex((c) => c.textContent === {title!r})"
    )
    return f"#table thead th:nth-child({at + 1}) button"


def told(browser: chromium.Browser, words: str) -> None:
    """Wait until the page says these words next to the mouse."""
    tip = "document.querySelector('#tip')"
    browser.until(f"!{tip}.hidden && {tip}.textContent.includes({words!r})")


def test_loads(shown: chromium.Browser) -> None:
    """The page has a title and a language, and says what was run."""
    assert shown.run("document.title") == "runs: placements compared"
    assert shown.run("document.documentElement.lang") == "en"
    assert "5 runs" in shown.run("document.querySelector('header p').textContent")
    assert len(column(shown, "step, ms")) == 5


def test_names_are_text(shown: chromium.Browser) -> None:
    """A policy called <script> is shown, and neither runs nor becomes an element."""
    assert report_store.HOSTILE in shown.run("document.querySelector('#table').textContent")
    assert shown.run("document.querySelectorAll('img').length") == 0
    assert shown.run("document.scripts.length") == 2


def test_sorts(shown: chromium.Browser) -> None:
    """A click on a header sorts upward, a second one downward, and the header says so."""
    before = column(shown, "step, ms")
    button = header(shown, "step, ms")
    shown.click(button)
    assert column(shown, "step, ms") == sorted(before)
    sort = f"document.querySelector({button!r}).parentNode.getAttribute('aria-sort')"
    assert shown.run(sort) == "ascending"
    # From the keyboard, too.
    shown.run(f"document.querySelector({button!r}).focus()")
    shown.key("Enter")
    assert column(shown, "step, ms") == sorted(before, reverse=True)
    assert shown.run(sort) == "descending"


def test_filters(shown: chromium.Browser) -> None:
    """Words and a placement narrow table and plot down; one button shows all again."""
    points = "document.querySelectorAll('#p-plot .item').length"
    assert shown.run(points) == 5
    shown.click("#f-text")
    shown.write("round-ROBIN")
    assert shown.run("document.querySelector('#count').textContent") == "2 of 5 runs"
    assert shown.run(points) == 2
    shown.choose("#f-policy", "contiguous")
    assert shown.run("document.querySelector('#count').textContent") == "0 of 5 runs"
    shown.click("#f-reset")
    shown.until("document.querySelector('#count').textContent === '5 runs'")
    assert shown.run(points) == 5


def test_points_tell(shown: chromium.Browser) -> None:
    """Pointing at a run says which it is and its figures; Enter draws its cluster."""
    shown.hover("#p-plot .item[data-run='1']")
    told(shown, "step, ms: ")
    told(shown, "hops per token and layer: ")
    shown.choose("#p-x", "1")
    shown.run("document.querySelector('#p-plot .item').focus()")
    shown.key("ArrowRight")
    moved = shown.run("document.activeElement === document.querySelectorAll('#p-plot .item')[1]")
    assert moved
    for _ in range(4):
        if shown.run("document.activeElement.dataset.run") == "2":
            break
        shown.key("ArrowRight")
    shown.key("Enter")
    assert shown.run("document.querySelector('#c-two').value") == "2"
    assert shown.run("document.querySelectorAll('tr.chosen').length") == 2


def test_links_tell(shown: chromium.Browser) -> None:
    """Links are coloured by load, the busiest most; pointing at one says what it carried."""
    colours = "[...new Set([...document.querySelectorAll('#c-plots .line')].map((e) => e.getAttribute('stroke')))].length"  # noqa: E501
    assert shown.run(colours) > 5
    assert shown.run("document.querySelectorAll('#c-plots figure').length") == 2
    shown.hover("#c-plots .item[data-gpu='0']")
    told(shown, "GPU 0 on server 0")
    # From the keyboard the busiest link comes first, and the next one carries no more.
    busy = []
    shown.run("document.querySelector('#c-plots .item[tabindex=\"0\"]').focus()")
    for _ in range(4):
        said = shown.run("document.querySelector('#tip').textContent")
        assert "MB" in said
        busy.append(float(said.split("\n")[-1].split(" ms of sending")[0]))
        shown.key("ArrowDown")
    assert all(one >= two for one, two in pairwise(busy))
    shown.key("Escape")
    assert shown.run("document.querySelector('#tip').hidden") is True


def test_lines_tell_under_the_mouse(shown: chromium.Browser) -> None:
    """The mouse finds a thin line, and hears what it carried."""
    shown.middle("#c-plots svg")
    x, y = shown.run(
        "(() => { const p = document.querySelector('#c-plots .line');"
        "const at = p.getPointAtLength(p.getTotalLength() / 2).matrixTransform(p.getScreenCTM());"
        "return [at.x, at.y]; })()"
    )
    shown.mouse("mouseMoved", x, y)
    told(shown, "ms of sending")


def test_layers(shown: chromium.Browser) -> None:
    """The view of layers draws both runs, another figure on demand, and the same as a table."""
    shown.choose("#l-key", "balance_gpu")
    assert shown.run("document.querySelectorAll('#l-plot .item').length") == 2 * 26
    assert shown.run("document.querySelectorAll('#l-table tbody tr').length") == 26
    shown.hover("#l-plot .item")
    told(shown, "busiest GPU / mean")


def test_accessible(shown: chromium.Browser) -> None:
    """All text has a contrast of 4.5, and whatever takes the focus has a name."""
    assert shown.run(CONTRAST) == []
    shown.send("Accessibility.enable")
    tree = shown.send("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "link", "combobox", "searchbox", "image", "region", "columnheader")
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node.get("ignored") and node["role"]["value"] in roles
    ]
    assert {role for role, _ in named} >= {"button", "link", "combobox", "searchbox", "image"}
    assert [each for each in named if not each[1].strip()] == []


def test_narrow_and_printed(shown: chromium.Browser, page: Path, tmp_path: Path) -> None:
    """A phone's width scrolls downward alone; the page prints."""
    shown.size(390, 800)
    assert shown.run("document.documentElement.scrollWidth") <= 390
    shown.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").stat().st_size > 20_000
    assert page.stat().st_size < 8_000_000


def test_the_browser_sees_trouble(window: chromium.Browser, tmp_path: Path) -> None:
    """Errors, requests and pale text of a bad page are noticed: the checks above can fail."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<body><img src='http://127.0.0.1:9/x.png'><p style='color:#aaa'>pale</p>"
        "<script>document.body.dataset.ready = 'yes'; console.error('no');"
        "setTimeout(() => { throw new Error('thrown') })</script></body>"
    )
    window.requests.clear()
    window.complaints.clear()
    window.open(bad)
    for _ in range(100):
        window.run("1")
        if len(window.complaints) >= 2:
            break
        time.sleep(0.05)
    assert "http://127.0.0.1:9/x.png" in window.requests
    assert "thrown" in "".join(window.complaints)
    assert "no" in "".join(window.complaints)
    assert window.run(CONTRAST) == ["P pale 2.32"]
