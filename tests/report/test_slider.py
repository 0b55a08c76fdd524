"""The slider of the report in a real browser, from a file, under the page's own policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, find_chromium

from automl_vision.report.html import render_html
from automl_vision.report.plots import draw_plots
from automl_vision.report.report import build_report

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.usefixtures("few_resamples"),
]
EVIL = "</script><script>document.title='owned'</script>' onload='1"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    opened = Browser(CHROMIUM, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def page(browser: Browser, inputs: Any, predict: Any, tmp_path: Path) -> tuple[Browser, dict[str, Any]]:
    """The report of a model with a hostile class, opened from the disk of a phone."""
    names = ("cat", EVIL, "eel")
    test = predict(n=120, right=0.8, classes=names, sure=0.9)
    test.probabilities[::3] = test.probabilities[::3] * 0.7 + 0.1  # 73 % sure
    report = build_report(inputs(test=test, validation=predict(n=90, right=0.9, classes=names)))
    file = tmp_path / "report.html"
    file.write_text(render_html(report, draw_plots(report)), encoding="utf-8")
    browser.look(width=390, height=800, touch=True)
    browser.requests.clear()
    browser.complaints.clear()
    browser.open(file.as_uri())
    return browser, report


def cell(page: Browser, name: str) -> str:
    return str(page.run(f"""document.querySelector('[data-cell="{name}"]').textContent"""))


def test_it_says_what_the_report_counted(page: tuple[Browser, dict[str, Any]]) -> None:
    browser, report = page
    counts = report["abstention"]["by_threshold"]
    for k in (0, 80, 95):
        browser.run(
            f"{{const r = document.querySelector('#threshold'); r.value = {k}; r.dispatchEvent(new Event('input'))}}"
        )
        assert cell(browser, "threshold") == f"{counts['thresholds'][k]:.3f}"
        for name in ("validation", "test"):
            each = counts[name]
            assert cell(browser, f"{name}-images") == f"{each['answered'][k]} of {each['n']}"
            share = f"{100 * each['right'][k] / each['answered'][k]:.1f}\u00a0%" if each["answered"][k] else "–"
            assert cell(browser, f"{name}-right") == share
    assert counts["test"]["answered"][0] > counts["test"]["answered"][80] > counts["test"]["answered"][95] == 0


def test_names_are_text_and_nothing_is_asked_of_the_outside(page: tuple[Browser, dict[str, Any]]) -> None:
    browser, report = page
    rows = browser.run("[...document.querySelectorAll('.by-class th')].map((each) => each.textContent)")
    assert rows == report["test"]["classes"]
    assert browser.run("document.title") != "owned"
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []


def test_a_phone_shows_it_whole(page: tuple[Browser, dict[str, Any]]) -> None:
    browser, _ = page
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run("document.querySelector('#slider').getBoundingClientRect().width") > 300


def test_without_scripts_the_table_stays(page: tuple[Browser, dict[str, Any]]) -> None:
    browser, _ = page
    address = browser.run("location.href")
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.call("Page.navigate", url=address)
        browser.call("Page.getLayoutMetrics")
        browser.wait("document.querySelector('#abstention table tbody tr') !== null")
        assert browser.run("document.querySelector('#slider').hidden")
        assert browser.run("document.querySelector('#abstention').innerText.includes('0.95')")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
