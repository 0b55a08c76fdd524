"""`automl-vision cache`: what a user sees of the cache folder, and what is asked before it is emptied."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import filelock
import pytest

from automl_vision.data.cache_entries import COMPARISONS, cache_entries, lock_of


@pytest.fixture
def folder(finished, cache, tmp_path):
    """A copy of the cache that a search left."""
    copied = tmp_path / "cache"
    shutil.copytree(cache, copied)
    return copied


def kept(command, folder):
    return json.loads(command("cache", "ls", "--cache-dir", folder, "--json").out)["entries"]


def test_ls_tells_images_sides_and_size(command, folder):
    result = command("cache", "ls", "--cache-dir", folder)
    assert result.code == 0
    for entry in kept(command, folder):
        (line,) = [line for line in result.out.splitlines() if line.startswith(entry["key"][:12])]
        assert f" {entry['images']} " in line
        assert " ".join(map(str, entry["sizes"])) in line
    assert "MB in" in result.out


def test_ls_tells_what_unfinished_sets_take_and_prune_removes_them(command, tmp_path):
    scratch = tmp_path / f"{'0' * 32}.tmp-1-x"
    scratch.mkdir()
    (scratch / "plane-8.u8").write_bytes(bytes(3_000_000))
    assert "Sets that are not finished take 3.0 MB." in command("cache", "ls", "--cache-dir", tmp_path).out
    told = json.loads(command("cache", "ls", "--cache-dir", tmp_path, "--json").out)
    assert (told["entries"], told["unfinished_bytes"]) == ([], 3_000_000)
    assert command("cache", "prune", "--cache-dir", tmp_path).code == 0
    assert not scratch.exists()
    assert "not finished" not in command("cache", "ls", "--cache-dir", tmp_path).out


def test_an_empty_cache_says_so(command, tmp_path):
    for arguments in (["ls"], ["prune"], ["clear", "--yes"]):
        result = command("cache", *arguments, "--cache-dir", tmp_path / "nowhere")
        assert result.code == 0
        assert "Nothing is kept" in result.out or "Removed 0 sets" in result.out


def test_prune_removes_what_is_too_much(command, folder):
    before = kept(command, folder)
    assert before
    assert command("cache", "prune", "--cache-dir", folder, "--gigabytes", "1000").out.startswith("Removed 0 sets")
    removed = json.loads(command("cache", "prune", "--cache-dir", folder, "--gigabytes", "0", "--json").out)["removed"]
    assert {entry["key"] for entry in removed} == {entry["key"] for entry in before}
    assert kept(command, folder) == []


def test_clear_asks_and_takes_the_comparisons_too(command, folder):
    (folder / COMPARISONS).touch()
    refused = command("cache", "clear", "--cache-dir", folder)
    assert refused.code == 2
    assert "--yes" in refused.err
    assert kept(command, folder)
    assert command("cache", "clear", "--cache-dir", folder, "--yes").code == 0
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("answer", "stays"), [("n\n", True), ("\n", True), ("y\n", False)])
def test_clear_does_what_is_answered(folder, answer, stays):
    """Asked on a terminal: one is made for the program."""
    if not hasattr(os, "openpty"):
        pytest.skip("no terminal can be made here")
    line = [sys.executable, "-m", "automl_vision", "cache", "clear", "--cache-dir", str(folder)]
    ours, theirs = os.openpty()
    try:
        asked = subprocess.run(line, input=answer, stderr=theirs, stdout=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(theirs)
        os.close(ours)
    assert asked.returncode == 0
    assert ("Nothing was removed" in asked.stdout) == stays
    assert bool(cache_entries(folder)) == stays


def test_a_search_decodes_again_what_was_cleared(command, folder, smoke, quick, tmp_path):
    command("cache", "clear", "--cache-dir", folder, "--yes")
    options = [*quick[: quick.index("--cache-dir")], "--cache-dir", folder]
    assert command("search", "--data", smoke, "--out", tmp_path / "run", *options).code == 0
    assert kept(command, folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["clear", "--yes"], "this is no folder"),
        (["ls"], "this is no folder"),
        (["prune", "--gigabytes", "inf"], "1000000"),
        (["prune", "--gigabytes", "-1"], "0"),
    ],
)
def test_mistakes_are_told_in_two_lines(command, tmp_path, arguments, words):
    (tmp_path / "file").touch()
    result = command("cache", *arguments, "--cache-dir", tmp_path / "file")
    assert result.code == 2
    assert words in result.err
    assert "Internal error" not in result.err


@pytest.mark.parametrize("arguments", [["clear", "--yes"], ["prune", "--gigabytes", "0"]])
def test_what_could_not_be_removed_is_told(command, folder, arguments):
    first, *others = cache_entries(folder)
    with filelock.FileLock(lock_of(folder, first.key)):
        result = command("cache", *arguments, "--cache-dir", folder)
    assert result.code == 2
    assert f"Removed {len(others)} set" in result.out
    assert "could not be removed" in result.err
    assert [entry.key for entry in cache_entries(folder)] == [first.key]


def test_an_empty_name_is_the_cache_of_this_user(command, tmp_path, monkeypatch):
    """As for `search`; a shell variable that is not set names no other folder."""
    monkeypatch.setenv("AUTOML_VISION_CACHE", str(tmp_path / "mine"))
    assert "mine" in command("cache", "ls", "--cache-dir", "").out.replace("\n", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(tmp_path) in command("cache", "ls", "--cache-dir", "~/other").out.replace("\n", "")
