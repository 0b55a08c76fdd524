"""The page in a real browser: an image goes in, its class is read, nothing is asked of the outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, find_chromium
from served import picture, serving

from automl_vision.serving.token import Token

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
CARDS = "[...document.querySelectorAll('.card:not(.waiting)')]"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    opened = Browser(CHROMIUM, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def page(browser: Browser, process: Any) -> Browser:
    browser.look(width=1280, height=900)
    browser.requests.clear()
    browser.complaints.clear()
    browser.open(process.url + "/")
    return browser


def choose(page: Browser, files: list[Path]) -> list[dict[str, Any]]:
    """What the cards say once all are there."""
    page.choose("#files", files)
    page.wait(f"{CARDS}.length === {len(files)}")
    text = "card.querySelector('.{0}').textContent"
    keys = ", ".join(f"{key}: {text.format(key)}" for key in ("file", "headline", "detail"))
    return list(page.run(f"{CARDS}.map((card) => ({{kind: card.className, bars: card.innerText, {keys}}}))"))


def test_an_image_gets_its_class_or_not_sure(page: Browser, process: Any, tmp_path: Path) -> None:
    files = [tmp_path / f"{seed}.png" for seed in range(4)]
    for seed, file in enumerate(files):
        file.write_bytes(picture(seed, side=20 + 3 * seed))
    cards = choose(page, files)
    rows = process.client.predict(*[(file.name, file.read_bytes()) for file in files]).rows
    assert {row["status"] for row in rows} == {"ok", "abstained"}, "the threshold tells them apart"
    for card, row in zip(cards, rows, strict=True):
        assert card["file"] == row["name"]
        assert card["kind"] == f"card {row['status']}"
        assert card["headline"] == (row["label"] or "Not sure")
        assert f"{100 * row['probability']:.1f} %" in card["bars"]
        assert ("No class reaches 40 %." in card["detail"]) == (row["status"] == "abstained")
    assert page.complaints == []
    outside = [url for url in page.requests if not url.startswith((process.url, f"blob:{process.url}"))]
    assert outside == []
    assert any(url.endswith("/page.js") for url in page.requests)


def test_where_it_looked_is_shown_beside_the_answer(page: Browser, process: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(picture(1, side=100))
    choose(page, [file])
    page.wait("document.querySelector('.heat:not([hidden]) img')?.naturalWidth === 100")
    (row,) = process.client.predict((file.name, file.read_bytes()), query="?explain=1").rows
    best = max(row["probabilities"], key=row["probabilities"].get)
    assert f"score for {best}" in page.run("document.querySelector('.heat figcaption').textContent")
    assert "no cause" in page.run("document.querySelector('.heat figcaption').textContent")
    assert page.run("document.querySelector('.look').hidden")
    assert page.complaints == []


def test_of_many_images_heat_maps_come_when_asked_for(page: Browser, tmp_path: Path) -> None:
    files = [tmp_path / f"{seed}.png" for seed in range(5)]
    for seed, file in enumerate(files):
        file.write_bytes(picture(seed))
    choose(page, files)
    assert page.run("document.querySelectorAll('.heat:not([hidden])').length") == 0
    assert not any("explain" in url for url in page.requests)
    page.run("document.querySelector('.look').click()")
    page.wait("document.querySelectorAll('.heat:not([hidden])').length === 1")
    assert page.complaints == []


def test_a_broken_file_says_why_and_names_stay_text(page: Browser, tmp_path: Path) -> None:
    good, bad, cut = tmp_path / "<img src=x onerror=alert(1)>.png", tmp_path / "text.png", tmp_path / "cut.png"
    good.write_bytes(picture())
    bad.write_text("hello")
    cut.write_bytes(picture()[:200])
    cards = choose(page, [good, bad, cut])
    assert cards[0]["file"] == good.name
    assert [card["headline"] for card in cards[1:]] == ["Not an image", "Damaged file"]
    assert "convert or remove it" in cards[1]["detail"]
    assert page.run("document.querySelectorAll('.card img').length") == 6  # preview and heat map each, none from a name


def test_an_image_can_be_dropped_and_pasted(page: Browser) -> None:
    data = list(picture())
    for event, carrier in (("DragEvent", "dataTransfer"), ("ClipboardEvent", "clipboardData")):
        kind = "drop" if event == "DragEvent" else "paste"
        page.run(
            f"(() => {{ const carried = new DataTransfer();"
            f"carried.items.add(new File([new Uint8Array({data})], '{kind}.png', {{type: 'image/png'}}));"
            f"const told = {{{carrier}: carried, bubbles: true, cancelable: true}};"
            f"document.dispatchEvent(new {event}('{kind}', told)); }})()"
        )
    page.wait(f"{CARDS}.length === 2")
    names = page.run(f"{CARDS}.map((card) => card.querySelector('.file').textContent)")
    assert names == ["paste.png", "drop.png"]  # the newest on top
    assert page.complaints == []


def test_an_image_over_the_limit_is_not_sent(page: Browser, tmp_path: Path) -> None:
    big = tmp_path / "big.png"
    with big.open("wb") as file:
        file.truncate(17 * 2**20)
    (card,) = choose(page, [big])
    assert (card["headline"], card["detail"]) == ("Too large", "17.0 MB, over 16.0 MB. Scale the image down.")
    assert not any("/predict" in url for url in page.requests)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "touch"), [(1280, False), (390, True), (320, True)])
@pytest.mark.parametrize("path", ["/", "/docs"])
def test_it_fits_every_screen(
    page: Browser, process: Any, tmp_path: Path, path: str, width: int, touch: bool, dark: bool
) -> None:
    page.look(width=width, height=800, touch=touch, dark=dark)
    page.open(process.url + path)
    if path == "/":
        long = tmp_path / f"{'a long name ' * 12}.png"
        long.write_bytes(picture())
        choose(page, [long])
        assert page.run("getComputedStyle(document.getElementById('camera').parentElement).display !== 'none'") == touch
    assert page.run("document.documentElement.scrollWidth") <= width
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(each) for each in background[4:-1].split(",")) < 200) == dark
    assert page.complaints == []


def test_the_camera_is_asked_for_on_a_phone(page: Browser) -> None:
    assert page.run("document.getElementById('camera').getAttribute('capture')") == "environment"
    assert page.run("document.getElementById('camera').accept") == "image/*"


def test_the_page_asks_for_the_token_and_keeps_it_in_this_tab(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(picture())
    with serving(token=Token("a-token-of-this-test")) as served:
        browser.open(served.url + "/")
        browser.wait("document.getElementById('asking') !== null")
        enter = "document.getElementById('token').value = '{}'; document.querySelector('#asking button').click()"
        browser.run(enter.format("a-token-of-another"))
        browser.wait("document.getElementById('said').textContent === 'This is not the token of this server.'")
        browser.run(enter.format("a-token-of-this-test"))
        browser.wait("document.querySelector('.classes') !== null")
        (card,) = choose(browser, [file])
        assert card["kind"] == "card ok"
        browser.open(served.url + "/about")  # no page, and asked for like one
        browser.wait("document.querySelector('pre')?.textContent.includes('zoo')")
        browser.open(served.url + "/docs")
        browser.wait("document.querySelector('h1')?.textContent === 'API'")
        assert browser.run("Object.keys(localStorage).length + document.cookie.length") == 0
    outside = [url for url in browser.requests if not url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:"))]
    assert outside == []
