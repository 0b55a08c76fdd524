import os
import sys
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from inspected import inspected, write_folder, write_image, write_leaky, write_troubled

from automl_vision.report import inspection_page
from automl_vision.report.html import ROWS
from automl_vision.report.inspection_page import render_inspection

SECTIONS = ["verdict", "split", "groups", "unsure", "leaks", "conflicts", "quarantine", "balance", "sizes", "findings"]


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text, self.pictures = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag == "img":
            self.pictures.append(dict(attrs))

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def page_of(seen, name="my pictures"):
    html = render_inspection(seen.prepared, seen.settings, name=name, created="today", threads=2)
    return html, Page(html)


TOLD = [("cat/2.png", "cat/3.png", True, 30.0), ("dog/2.png", "dog/3.png", False, 5.0)]


def test_tells_what_matters_most_first(tmp_path):
    html, page = page_of(inspected(write_troubled(tmp_path), TOLD))
    places = [html.index(f'<section id="{name}"') for name in SECTIONS]
    assert places == sorted(places)
    levels = [int(tag[1]) for tag in page.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_section_has_its_content(tmp_path):
    _, page = page_of(inspected(write_troubled(tmp_path), TOLD))
    for words in (
        "24 images in 2 classes",
        "registered plain: 20 points",
        "1 pair alike, but not surely one picture",
        "none of them is used until one is removed",
        "dog/cut.png",
        "Images by their shorter side",
        "The data came without a split",
        "What was not checked",
    ):
        assert words in page.words, words
    assert len(page.pictures) == 3 * 2 + 2 + 2  # three groups, one unsure pair, one pair of two labels


def test_empty_sections_say_so_in_a_line(tmp_path):
    _, page = page_of(inspected(write_folder(tmp_path), told=[]))
    for words in (
        "no copies were found",
        "No pair was left in doubt.",
        "No picture was found under two labels.",
        "Every file can be read.",
    ):
        assert words in page.words, words
    assert page.pictures == []
    _, page = page_of(inspected(tmp_path))
    assert "Pictures were not compared (--lineage full does that)." in page.words


def test_leaks_are_shown_in_pairs(tmp_path):
    _, page = page_of(inspected(write_leaky(tmp_path)))
    assert "1 image taken out of the set" in page.words
    assert "(came as train)" in page.words


def test_asks_nothing_of_the_outside(tmp_path):
    html, page = page_of(inspected(write_troubled(tmp_path), TOLD))
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    pulled = [value for _, key, value in page.attributes if key in ("src", "href", "xlink:href", "srcset", "action")]
    outside = [v for v in pulled if not v.startswith(("#", "data:image/png;base64,", "data:image/jpeg;base64,"))]
    assert outside == []
    assert "url(" not in html
    assert "@import" not in html
    assert any("default-src 'none'" in value for _, key, value in page.attributes if key == "content")


def test_every_link_leads_somewhere_and_every_picture_has_words(tmp_path):
    _, page = page_of(inspected(write_troubled(tmp_path), TOLD))
    anchors = {value for _, key, value in page.attributes if key == "id"}
    assert {value[1:] for _, key, value in page.attributes if key == "href"} <= anchors
    assert all(picture["alt"].strip() for picture in page.pictures)


EVIL = {
    "script": "<script>alert(1)<",  # a slash cannot be in a name
    "quotes": "a\"' onerror=alert(1) x='",
    "braces": "{{ 7*7 }}{% raw %}",
    "entity": "&lt;b&gt;&amp;",
    "lines": "two\nlines\r\x1b[31m",
    "turned": "\u202egnp.exe\u2066",
}


@pytest.fixture
def evil(tmp_path):
    """Classes and files of hostile names; in each class a copy by its name, an unreadable file and a pair."""
    for number, name in enumerate(EVIL.values()):
        write_folder(tmp_path, classes=(name,), images=4, seed=50 * number)
        write_image(tmp_path / name / f"{name}.png", seed=5000 + number)
        write_image(tmp_path / name / f"{name}_hflip.png", seed=6000 + number)
        (tmp_path / name / f"{name} broken.png").write_text("nothing")
    if sys.platform == "linux":
        undecodable = os.fsencode(tmp_path / EVIL["script"]) + b"/\xff\xfe.png"
        (tmp_path / EVIL["script"] / "0.png").rename(os.fsdecode(undecodable))
    return tmp_path


def test_names_from_the_data_are_text(evil, tmp_path):
    paths = [(f"{name}/1.png", f"{name}/2.png") for name in EVIL.values()]
    told = [(*paths[0], True, 30.0), (*paths[1], False, 5.0), (paths[2][0], paths[3][0], True, 9.0)]
    html, page = page_of(inspected(evil, told), name=EVIL["script"])
    html.encode("utf-8")  # no surrogates
    assert "script" not in page.tags
    assert page.tags.count("style") == 1
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    assert {key for tag, key, _ in page.attributes if tag == "img"} <= {"src", "alt", "class", "loading"}
    for name in ("script", "quotes", "braces", "entity"):
        assert EVIL[name] in page.words, name
    assert "\\x0alines\\x0d\\x1b[31m" in page.words
    assert not set("\u202e\u2066\x1b\r") & set(html)


def test_many_classes_groups_and_files_fit(tmp_path, monkeypatch):
    for table, limit in {"classes": 20, "bars": 20, "quarantine": 5}.items():
        monkeypatch.setitem(ROWS, table, limit)
    names = [f"class {n:03d}" for n in range(40)]
    write_folder(tmp_path, classes=names, images=4)
    for name in names:
        write_image(tmp_path / name / "0_hflip.png", seed=90_000 + int(name[-3:]))
        (tmp_path / name / "broken.png").write_text("nothing")
    html, page = page_of(inspected(tmp_path))
    assert "20 of 40 classes shown; the other 20 are in split.csv" in page.words
    assert "5 of 40 files shown; the other 35 are in audit.csv" in page.words
    assert "20 more groups: see evidence.csv" in page.words
    assert len(page.pictures) == 40
    assert len(html.encode()) < 600_000


def test_a_file_that_went_away_is_said_to_have_no_picture(tmp_path):
    seen = inspected(write_troubled(tmp_path))
    (tmp_path / "cat" / "0_hflip.png").unlink()
    _, page = page_of(seen)
    assert "no picture" in page.words
    assert len(page.pictures) == 2 * 2 + 2 - 1  # two groups and the pair of two labels, less the one


def test_thumbnails_are_reported_as_they_are_made(tmp_path):
    seen = inspected(write_troubled(tmp_path), TOLD)
    told = []
    inspection_page.thumbnails(seen.prepared, [0, 1, 2], 1, lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
