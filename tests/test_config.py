"""Settings: read, checked as a whole, and written so that they read back equal."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.config import (
    TABLES,
    Settings,
    dump_settings,
    list_settings,
    load_settings,
    setting_help,
)
from automl_vision.errors import ConfigError


def written(folder: Path, text: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(text, encoding="utf-8")
    return file


def complaint(file: Path | None = None, **overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(file, {name.replace("__", "."): value for name, value in overrides.items()})
    return str(caught.value)


# Text that once broke somebody's settings file: quotes, backslashes, control characters, other planes.
nasty_text = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    [
        '"',
        "\\",
        '\\"',
        "\n",
        "\r\n",
        "\t\0\x7f",
        "'''",
        '"""',
        "# no comment",
        "[table]",
        "é🦊\u2028",
        "\\U0000",
    ]
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    by_type: dict[Any, st.SearchStrategy[Any]] = {
        str: nasty_text,
        int: st.integers(),
        float: st.floats(allow_nan=False),
        bool: st.booleans(),
        type(None): st.none(),
        list[str]: st.lists(nasty_text),
        list[int]: st.lists(st.integers()),
        dict[str, str]: st.dictionaries(nasty_text, nasty_text),
    }
    options = typing.get_args(hint) if hint not in by_type else (hint,)
    return st.one_of([by_type[option] for option in options])


@st.composite
def settings(draw: st.DrawFn) -> Settings:
    """Any settings that pass the checks: a few fields changed, the rest as they are."""
    table = draw(st.sampled_from(sorted(TABLES)))
    hints = typing.get_type_hints(TABLES[table])
    names = draw(st.lists(st.sampled_from(sorted(hints)), unique=True, min_size=1))
    given: dict[str, Any] = {}
    for name in names:
        value = draw(values_of(hints[name]))
        try:
            load_settings(overrides={f"{table}.{name}": value})
        except ConfigError:
            continue
        given[f"{table}.{name}"] = value
    return load_settings(overrides=given)


@given(settings())
def test_what_is_written_reads_back_equal(value: Settings) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        assert load_settings(written(Path(folder), dump_settings(value))) == value


@given(nasty_text, st.dictionaries(nasty_text, nasty_text))
def test_nasty_text_survives_writing_and_reading(text: str, table: dict[str, str]) -> None:
    import tempfile

    value = load_settings(overrides={"data.label_column": text, "search.weights": table})
    with tempfile.TemporaryDirectory() as folder:
        back = load_settings(written(Path(folder), dump_settings(value)))
    assert (back.data.label_column, back.search.weights) == (text, table)


def test_defaults_pass_their_own_checks_and_round_trip(tmp_path: Path) -> None:
    assert load_settings() == Settings()
    assert load_settings(written(tmp_path, dump_settings(Settings()))) == Settings()


def test_settings_do_not_share_mutable_defaults() -> None:
    assert Settings().search.weights is not Settings().search.weights


def test_settings_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().search.budget = "1s"  # type: ignore[misc]


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    text = complaint(
        written(
            tmp_path,
            "[search]\nbudjet = '1m'\ntrials = -1\nsampler = 'grid'\n[trainning]\nepochs = 1\n"
            "[split]\ntest = 'much'\n[data]\ngroup_regex = '('\n",
        )
    )
    for part in (
        "6 problems in",
        "'search.budjet'; did you mean 'search.budget'?",
        "search.trials must be at least 0, got -1",
        "search.sampler must be one of auto, tpe, gp, random, cmaes, got 'grid'",
        "unknown table 'trainning'; did you mean 'training'?",
        "split.test must be a number, got 'much'",
        "data.group_regex is no regular expression",
    ):
        assert part in text
    assert "\nFix: " in text


def test_problems_stand_on_lines_of_their_own() -> None:
    assert complaint(search__trials=-1).splitlines() == [
        "1 problem in the settings:",
        "  - search.trials must be at least 0, got -1",
        "Fix: correct them; docs/settings.md lists every setting",
    ]


@pytest.mark.parametrize(
    ("toml", "meant"),
    [
        ("[search]\nBudget = '1m'", "search.budget"),
        ("[training]\nbudget = '1m'", "search.budget"),
        ("budget = '1m'", "search.budget"),
        ("[machine]\ncachedir = 'x'", "machine.cache_dir"),
        ("[machines]\nseed = 1", "machine"),
        ("[SEARCH]\ntrials = 1", "search"),
    ],
)
def test_a_wrong_name_gets_the_one_that_was_meant(tmp_path: Path, toml: str, meant: str) -> None:
    assert f"did you mean '{meant}'?" in complaint(written(tmp_path, toml))


def test_a_name_like_no_other_gets_the_list(tmp_path: Path) -> None:
    assert "known: test, val" in complaint(written(tmp_path, "[split]\nxyzzy = 1"))


def test_a_table_that_is_no_table_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, "search = 3")
    assert "'search' must be a table, got 3" in complaint(file)
    assert "'search' must be a table, got 3" in complaint(file, search__trials=1)


@pytest.mark.parametrize("name", ["budget", "search", "search.budjet", "nothing.at.all", ""])
def test_an_override_of_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        load_settings(overrides={name: "1m"})


def test_overrides_win_and_none_is_passed_over(tmp_path: Path) -> None:
    file = written(tmp_path, "[search]\nbudget = '1m'\ntrials = 3\n")
    value = load_settings(file, {"search.budget": "2m", "search.trials": None, "machine.seed": 7})
    assert (value.search.budget, value.search.trials, value.machine.seed) == ("2m", 3, 7)


def test_a_good_override_repairs_a_bad_file(tmp_path: Path) -> None:
    file = written(tmp_path, "[search]\ntrials = -1\n")
    assert load_settings(file, {"search.trials": 1}).search.trials == 1


def test_whole_numbers_pass_for_floats_but_not_the_other_way(tmp_path: Path) -> None:
    value = load_settings(written(tmp_path, "[training]\nlearning_rate = 1\n")).training.learning_rate
    assert value == 1.0
    assert type(value) is float
    assert "search.trials must be a whole number, got 2.0" in complaint(search__trials=2.0)


@pytest.mark.parametrize("name", ["search__trials", "split__test", "training__learning_rate"])
def test_true_is_not_a_number(name: str) -> None:
    assert "got True" in complaint(**{name: True})


def test_one_is_not_true() -> None:
    assert "must be true or false, got 1" in complaint(data__skip_bad_rows=1)


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("training__learning_rate", float("nan"), "from 1e-07 to 10"),
        ("training__clip_norm", float("inf"), "at least 0"),
        ("training__learning_rate", 10**400, "must be a number"),
        ("training__momentum", 1.0, "below 1"),
        ("training__batch_size", 0, "auto, or from 1 to 65536"),
        ("training__batch_size", "large", "auto, or from 1 to 65536"),
        ("training__batch_size", 8.5, "a whole number or text"),
        ("search__resolutions", [32, 0], "sides from 16 to 4096"),
        ("search__resolutions", [32, True], "a list of whole numbers"),
        ("search__backbones", [""], "names that are not empty"),
        ("search__backbones", "resnet18", "a list of text"),
        ("search__weights", {"resnet18": 3}, "a table of text"),
        ("search__budget", 600, "must be text"),
        ("machine__seed", 2**32, "from 0 to 4294967295"),
        ("machine__device", "gpu", "auto, cpu, cuda, cuda:N or mps"),
        ("output__name", "../elsewhere", "name of one folder"),
        ("output__runs", "caf\udce9", "valid Unicode"),
        ("data__group_regex", "patient_\\d+", "one group in round brackets"),
        ("data__original_regex", "a{99999999999999999999}", "no regular expression"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_the_bounds(name: str, value: Any, part: str) -> None:
    assert part in complaint(**{name: value})


@pytest.mark.parametrize("name", ["a b", 'it\'s "quoted"', "two\nlines", "🦊", ".hidden", ""])
def test_a_run_may_have_any_folder_name(name: str) -> None:
    assert load_settings(overrides={"output.name": name}).output.name == name


def test_test_and_validation_must_leave_something_to_train_on() -> None:
    assert "leave nothing to train on" in complaint(split__test=0.5, split__val=0.5)


def test_a_time_of_their_own_needs_backbones_and_no_budget() -> None:
    each = {"search.budget_per_backbone": "2m", "search.backbones": ["a", "b", "a"]}
    value = load_settings(overrides=each)
    assert (value.seconds_per_backbone, value.budget_seconds) == (120, 240)
    assert Settings().seconds_per_backbone is None
    assert "name search.backbones" in complaint(search__budget_per_backbone="2m")
    assert "exclude each other" in complaint(
        search__budget_per_backbone="2m", search__budget="9m", search__backbones=["a"]
    )


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"[search\n", "line 1"),
        (b"[search]\nbudget = 10m\n", "line 2"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[machine]\nseed = " + b"9" * 5000, "not TOML"),
    ],
)
def test_a_file_that_is_not_toml_says_where(tmp_path: Path, content: bytes, part: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    assert part in complaint(file)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert "No such file" in complaint(tmp_path / "none.toml")
    assert str(tmp_path) in complaint(tmp_path)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(b"\xef\xbb\xbf[search]\r\ntrials = 4\r\n")
    assert load_settings(file).search.trials == 4


def test_every_setting_is_described() -> None:
    names = [each.name for each in list_settings()]
    assert len(names) == len(set(names)) == sum(len(dataclasses.fields(table)) for table in TABLES.values())
    for each in list_settings():
        assert each.help.endswith(".")
        assert each.kind
        assert setting_help(each.name) == each.help


def test_help_for_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(KeyError):
        setting_help("search.nothing")


@pytest.mark.parametrize("name", ["machine.cache_dir", "data.label_map", "output.trials_url", "output.runs"])
@pytest.mark.parametrize("path", ["a\0b", "/tmp/\0", "s3://bucket/a\0b"])
def test_no_path_holds_a_nul_character(name: str, path: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*without a NUL character"):
        load_settings(overrides={name: path})


@pytest.mark.parametrize("threads", [-1, 4097, 10**30])
def test_threads_have_bounds(threads: int) -> None:
    with pytest.raises(ConfigError, match=r"machine\.threads.*from 0 to 4096"):
        load_settings(overrides={"machine.threads": threads})
