"""What is recognised again, what is not, and what is too plain to say."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from automl_vision.data import fingerprint as subject
from automl_vision.data.fingerprint import (
    LARGEST_DISTANCE,
    SIDE,
    TINY,
    Mark,
    Marks,
    look_alike,
    mark,
    orientations,
    picture_hash,
    pixel_digest,
)
from automl_vision.data.lineage.groups import connected
from automl_vision.data.lineage.lineage import Link


def scene(seed: int, size: tuple[int, int] = (180, 140)) -> Image.Image:
    """A picture with something at every scale, no two alike."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        )
        for n in (3, 6, 12, 24)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def marked(image: Image.Image) -> Mark:
    return mark(np.asarray(image.convert("RGB")))


def marks_of(*images: Image.Image) -> Marks:
    arrays = [np.asarray(each) for each in images]
    hashes = [picture_hash(np.asarray(each.resize((SIDE, SIDE), Image.Resampling.BILINEAR))) for each in images]
    return Marks.of([pixel_digest(each) for each in arrays], hashes)


def saved(image: Image.Image, form: str, **options: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, form, **options)
    return Image.open(file).convert("RGB")


WAYS = {
    "JPEG": lambda image: saved(image, "JPEG", quality=60),
    "WebP": lambda image: saved(image, "WEBP", quality=60),
    "half": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR),
    "double": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
    "square": lambda image: image.resize((200, 200), Image.Resampling.LANCZOS),
    **{
        f"{turn.name} and JPEG": lambda image, turn=turn: saved(image.transpose(turn), "JPEG", quality=80)
        for turn in Image.Transpose
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_copies_are_nearly_known_and_strangers_are_not(way):
    known = [scene(seed) for seed in range(20)]
    marks = marks_of(*known)
    copies = [marked(WAYS[way](image)) for image in known]
    strangers = [marked(WAYS[way](scene(seed))) for seed in range(100, 130)]
    assert marks.recognise(copies) == ["nearly"] * 20
    assert marks.recognise(strangers) == [""] * 30


def test_equal_pixels_are_exactly_known_whatever_the_file():
    image = scene(0)
    assert marks_of(image, scene(1)).recognise([marked(saved(image, "PNG")), marked(saved(image, "BMP"))]) == [
        "exactly",
        "exactly",
    ]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_hash_of_a_turned_picture_follows_from_the_first(seed):
    small = np.asarray(scene(seed, (SIDE, SIDE)))
    if not picture_hash(small):
        return
    expected = [np.ascontiguousarray(np.rot90(each, k=turns)) for each in (small, small[:, ::-1]) for turns in range(4)]
    wanted = sorted(int(picture_hash(each), 16) for each in expected)
    assert sorted(orientations(int(picture_hash(small), 16))) == wanted


@settings(max_examples=100, deadline=None)
@given(value=st.integers(0, 2**63 - 1))
def test_orientations_are_a_group(value):
    views = list(orientations(value))
    assert views[0] == value
    assert len(views) == 8
    for each in views:
        assert sorted(orientations(each)) == sorted(views)


def grid():
    return np.mgrid[0:96, 0:96] / 96


def grey(plane):
    return np.repeat(np.clip(plane, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


PLAIN = {
    "one colour": lambda y, x: 0 * y + 200,
    "a gradient": lambda y, x: 255 * x,
    "faint noise": lambda y, x: 128 + np.random.default_rng(0).normal(0, 4, y.shape),
    "a disc": lambda y, x: 255 * ((y - 0.5) ** 2 + (x - 0.5) ** 2 < 0.1),
    "a disc that is off centre": lambda y, x: 255 * ((y - 0.4) ** 2 + (x - 0.55) ** 2 < 0.06),
    "a star cluster": lambda y, x: 255 * np.exp(-40 * ((y - 0.47) ** 2 + (x - 0.52) ** 2)),
    "a bar": lambda y, x: 255 * ((abs(y - 0.3) < 0.1) & (abs(x - 0.5) < 0.4)),
    "stripes": lambda y, x: 255 * (np.sin(y * 20) > 0),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_pictures_raise_no_alarm(name):
    picture = grey(PLAIN[name](*grid()))
    brighter = grey(0.9 * picture[..., 0].astype(float) + 10)
    assert mark(picture).hash is None
    plain = Marks.of([pixel_digest(picture)], [picture_hash(np.asarray(Image.fromarray(picture).resize((SIDE, SIDE))))])
    assert len(plain.hashes) == 0
    assert plain.recognise([mark(brighter)]) == [""]
    assert plain.recognise([mark(picture)]) == ["exactly"]


def test_tiny_pictures_must_agree_in_every_sign():
    image = scene(3, (TINY, 100))
    assert marked(image).tolerance == 0
    assert marked(scene(3, (TINY + 1, 100))).tolerance == LARGEST_DISTANCE
    known = marks_of(image)
    value = int(known.hashes[0])
    assert known.recognise([Mark(0, value, 0), Mark(0, value ^ 1, 0), Mark(0, value ^ 1, 1)]) == [
        "nearly",
        "",
        "nearly",
    ]


@pytest.mark.parametrize("block", [1, 7, 4_000_000])
def test_blocks_change_nothing(monkeypatch, block):
    rng = np.random.default_rng(0)
    known = rng.integers(0, 2**62, 50)
    marks = Marks.of([f"{n:032x}" for n in range(50)], [f"{n:016x}" for n in known])
    asked = [Mark(10**6 + n, int(known[n]) ^ ((1 << n % 5) - 1)) for n in range(40)] + [Mark(1, None)]
    monkeypatch.setattr(subject, "_BLOCK", block)
    assert marks.recognise(asked)[:40] == ["nearly" if n % 5 <= LARGEST_DISTANCE else "" for n in range(40)]


def nearby(rng: np.random.Generator, value: int) -> int:
    """A hash turned in some way, with up to five signs changed."""
    turned = list(orientations(value))[rng.integers(8)]
    for bit in rng.choice(63, rng.integers(6), replace=False).tolist():
        turned ^= 1 << bit
    return turned


@pytest.mark.parametrize("block", [1, 7, 4_000_000])
@pytest.mark.parametrize("seed", range(3))
def test_those_look_alike_of_which_one_is_recognised_by_the_other(monkeypatch, block, seed):
    rng = np.random.default_rng(seed)
    originals = rng.integers(0, 2**63, 8, dtype=np.uint64).tolist()
    hashes = [nearby(rng, originals[row % 8]) for row in range(60)]
    images = [Mark(row, value, int(rng.choice([0, LARGEST_DISTANCE]))) for row, value in enumerate(hashes)]
    images[::20] = [None, Mark(70, None), None]
    monkeypatch.setattr(subject, "_BLOCK", block)
    known = [None if each is None or each.hash is None else Marks.of([], [f"{each.hash:016x}"]) for each in images]

    def recognised(one: int, other: int) -> bool:
        return (
            known[one] is not None and known[other] is not None and known[one].recognise([images[other]]) == ["nearly"]
        )

    pairs = [(one, other) for other in range(60) for one in range(other)]
    wanted = {pair for pair in pairs if recognised(*pair) or recognised(*pair[::-1])}
    found = set(look_alike(images))
    groups = [connected(60, [Link(*pair, "", "") for pair in pairs]).tolist() for pairs in (found, wanted)]
    assert found <= wanted
    assert groups[0] == groups[1]
    assert 8 < len(set(groups[0])) < 50


def test_nothing_is_known_of_nobody():
    assert Marks.of([], []).recognise([marked(scene(0))]) == [""]
    assert marks_of(scene(0)).recognise([]) == []
    assert list(look_alike([])) == list(look_alike([None, Mark(1, None)])) == []


def test_marks_are_sorted_and_say_nothing_of_their_order():
    one, two = marks_of(scene(0), scene(1), scene(0)), marks_of(scene(1), scene(0))
    assert one.digests.tolist() == two.digests.tolist() == sorted(two.digests.tolist())
    assert one.hashes.tolist() == two.hashes.tolist() == sorted(two.hashes.tolist())
    assert len(one) == 2


def test_images_that_did_not_decode_leave_no_mark():
    assert len(Marks.of(["", "00" * 16], ["", ""])) == 1
