"""`shard`, and the commands that read what it wrote, as a user calls them."""

from __future__ import annotations

import json

import pandas as pd
from command import BY_NAMES, assert_harmless, assert_mistake


def test_data_become_shards_that_are_checked_and_inspected(command, smoke, tmp_path):
    out = tmp_path / "shards"
    options = ("--no-cache", *BY_NAMES)
    result = command("shard", "--data", smoke, "--out", out, "--shard-images", "4", *options)
    assert result.code == 0, result.err
    assert "21 images in " in result.out and f"--data {out}" in result.out
    assert_harmless(result)
    told = json.loads(command("shard", "--verify", out, "--json").out)
    assert told["samples"] == 21 and told["problems"] == [] and told["lost"] == 0
    assert "are what was written" in command("shard", "--verify", out).out
    before = json.loads(command("inspect", "--data", smoke, "--json", *options).out)
    after = json.loads(command("inspect", "--data", out, "--json", *options).out)
    assert after["class_counts"] == before["class_counts"] and after["classes"] == before["classes"]
    again = command("shard", "--data", smoke, "--out", out, *options)
    assert_mistake(again, 2, "there are shards in this folder already", str(out), "--verify")


def test_a_search_on_shards_is_the_search_on_their_files(command, smoke, quick, tmp_path):
    out, options = tmp_path / "shards", (*quick, "--no-decode-ahead", *BY_NAMES)
    assert command("shard", "--data", smoke, "--out", out, "--shard-images", "5", *BY_NAMES).code == 0
    run = tmp_path / "run"
    result = command("search", "--data", out, "--out", run, *options)
    assert result.code == 0, result.err
    report = json.loads((run / "report.json").read_text())
    split = pd.read_csv(run / "split.csv")
    given = pd.read_csv(out / "split.csv")
    assert split.set_index("path")["split"].to_dict() == given.set_index("path")["split"].to_dict()
    assert report["test"]["n"] == (given["split"] == "test").sum()
    assert json.loads((run / "run.json").read_text())["by_shards"] is True
    assert (run / "gallery.json").is_file() and not list(run.glob("**/*.u8"))
    looked = command("evaluate", run / "model.pt", "--data", out, "--include-seen", "--json")
    assert looked.code == 0, looked.err
    assert json.loads(looked.out)["known"]["checked"] is True


def test_damage_is_an_exit_code_and_a_list(command, smoke, tmp_path):
    out = tmp_path / "shards"
    assert command("shard", "--data", smoke, "--out", out, "--shard-images", "4", "--no-cache", *BY_NAMES).code == 0
    victim = out / "train-000001.tar"
    victim.write_bytes(victim.read_bytes()[:5000])
    result = command("shard", "--verify", out)
    assert result.code == 3 and "shards are not what was written" in result.err
    (line,) = result.lines()
    assert line.startswith("train-000001.tar: ") and "of 4 samples are missing, from 0000000" in line
    assert_harmless(result)
    told = json.loads(command("shard", "--verify", out, "--json").out)
    assert told["problems"] == [line] and told["lost"] == int(line.split()[1])
    inspected = command("inspect", "--data", out, "--json", "--no-cache", *BY_NAMES)
    assert (inspected.code == 0 and line in inspected.err) or "quarantine" in inspected.out
    assert sum(json.loads(inspected.out)["class_counts"]["quarantine"]) == told["lost"]


def test_mistakes_are_told_at_once(command, smoke, tmp_path):
    assert_mistake(command("shard"), 2, "--data and --out, or --verify")
    assert_mistake(command("shard", "--data", smoke), 2, "--data and --out, or --verify")
    assert_mistake(command("shard", "--data", smoke, "--out", "a", "--verify", "b"), 2, "--data and --out, or --verify")
    assert_mistake(command("shard", "--data", smoke, "--out", "https://host/a"), 2, "not written to", "(https:)")
    assert_mistake(command("shard", "--verify", tmp_path), 2, "shards.json", str(tmp_path))
    for place in ("pipe:touch ran", "http://host/a", "memory://a"):
        assert_mistake(command("inspect", "--data", place), 2, "not read from a URL of this scheme", "https://")
    assert_mistake(command("search", "--data", "s3://bucket/a?versionId=secret"), 2, "more than a host and a folder")
    assert not (tmp_path / "ran").exists()
