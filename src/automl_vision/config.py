"""Settings: one dataclass per table of the TOML file, checked as a whole before anything starts.

The help text of a command-line option is the help of the setting it overrides, so the two cannot drift apart.
Nothing heavy is imported here: `--help` reads this file.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from automl_vision.errors import ConfigError

Check = Callable[[Any], str]  # returns what is wrong, or ""

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[smhd]?)")


def parse_duration(text: str) -> float:
    """Seconds of "90s", "10m", "1h", "1h30m", or a bare number of seconds.

    Raises:
        ConfigError: the text is no duration, or it is not positive.
    """
    compact = text.strip().lower()
    parts = list(_DURATION.finditer(compact))
    if not parts or "".join(part.group(0) for part in parts) != compact:
        raise ConfigError("not a duration", value=repr(text), fix="write it like 90s, 10m, 1h or 1h30m")
    seconds = sum(float(part["number"]) * _UNITS[part["unit"] or "s"] for part in parts)
    if seconds <= 0:
        raise ConfigError("a duration must be longer than nothing", value=repr(text), fix="write 90s, 10m or 1h")
    return seconds


def _duration(value: str) -> str:
    try:
        parse_duration(value)
    except ConfigError as error:
        return f"{error.what}; {error.fix}"
    return ""


def _between(low: float, high: float, *, open_high: bool = False) -> Check:
    def check(value: float) -> str:
        inside = low <= value < high if open_high else low <= value <= high
        return "" if inside else f"must be from {low:g} to {'below ' if open_high else ''}{high:g}"

    return check


def _at_least(low: float) -> Check:
    return lambda value: "" if value >= low else f"must be at least {low:g}"


def _one_of(*names: str) -> Check:
    return lambda value: "" if value in names else f"must be one of {', '.join(names)}"


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        return f"is no regular expression ({error})"
    return ""


def _regex_with_key(value: str) -> str:
    wrong = _regex(value)
    if wrong or not value:
        return wrong
    return "" if re.compile(value).groups else "needs one group in round brackets: the part that names the group"


def _setting(default: Any, help_text: str, check: Check | None = None) -> Any:
    factory = {"default_factory": lambda: default} if isinstance(default, list | dict) else {"default": default}
    return field(**factory, metadata={"help": help_text, "check": check})


@dataclass(frozen=True)
class DataSettings:
    """What is read, and how rows are understood."""

    image_column: str = _setting("", "Column with the image paths (tables only; found by name when left out).")
    label_column: str = _setting("", "Column with the labels (tables only; found by name when left out).")
    split_column: str = _setting("", "Column that says train, val or test (default: 'split' where there is one).")
    group_column: str = _setting("", "Column of what must stay together: patient, video ... (default: 'group').")
    augmented_column: str = _setting("", "Column that marks augmented copies (default: 'is_augmented').")
    label_map: str = _setting("", "CSV of two columns, fine label and coarse label: merges classes.")
    group_regex: str = _setting(
        "",
        "Regular expression on the relative path; its first group names what must stay together.",
        _regex_with_key,
    )
    original_regex: str = _setting(
        "",
        "Regular expression on the relative path; paths it matches are originals, all others copies.",
        _regex,
    )
    lineage: str = _setting(
        "names", "Evidence for copies: names (columns, names, equal pixels) or off.", _one_of("names", "off")
    )
    max_samples: int = _setting(0, "Use at most this many images, stratified, whole groups (0: all).", _at_least(0))
    skip_bad_rows: bool = _setting(False, "Quarantine rows of a table that name a missing file or no label.")
    allow_outside: bool = _setting(False, "Accept paths in a table that lead out of the table's folder.")
    drop_small_classes: bool = _setting(False, "Leave out classes with too few originals to split, and say so.")


@dataclass(frozen=True)
class SplitSettings:
    """How much of the originals each set gets, where the data bring no split of their own."""

    test: float = _setting(0.2, "Share of the originals that is kept for the one final test.", _between(0.01, 0.8))
    val: float = _setting(0.2, "Share of the originals that chooses between candidates.", _between(0.01, 0.8))


@dataclass(frozen=True)
class SearchSettings:
    """What is searched, and for how long."""

    budget: str = _setting("10m", "Wall-clock budget from start to report: 90s, 10m, 1h30m.", _duration)
    trials: int = _setting(0, "Stop after this many trials (0: the budget decides).", _at_least(0))
    objective: str = _setting(
        "auto",
        "What validation maximises; auto: macro_f1 if the largest class is over 3 times the smallest, else accuracy.",
        _one_of("auto", "accuracy", "macro_f1", "balanced_accuracy"),
    )
    sampler: str = _setting("tpe", "How new recipes are proposed: tpe or random.", _one_of("tpe", "random"))
    backbones: list[str] = _setting([], "Backbones to search: table names or any timm name (empty: chosen for you).")
    weights: dict[str, str] = _setting({}, "Local weights file per backbone: name -> path (.safetensors, .pth).")
    pretrained: bool = _setting(True, "Start from pretrained weights.")
    resolutions: list[int] = _setting([], "Input sides in pixels to search (empty: chosen for you).")
    offline: bool = _setting(False, "Never ask the weight hub; use what is on this machine.")


@dataclass(frozen=True)
class TrainingSettings:
    """Values that are pinned for every recipe. What is left out is searched, or set by a rule."""

    epochs: int | None = _setting(None, "Epochs of every fine-tune.", _between(1, 10_000))
    batch_size: int | None = _setting(None, "Images per optimizer step.", _between(1, 65_536))
    optimizer: str | None = _setting(None, "adamw or sgd.", _one_of("adamw", "sgd"))
    learning_rate: float | None = _setting(None, "Peak learning rate.", _between(1e-7, 10.0))
    weight_decay: float | None = _setting(None, "Weight decay.", _between(0.0, 1.0))
    momentum: float | None = _setting(None, "SGD momentum or Adam beta1.", _between(0.0, 1.0, open_high=True))
    layer_decay: float | None = _setting(None, "Learning-rate factor per layer towards the input.", _between(0.1, 1.0))
    schedule: str | None = _setting(
        None, "Learning-rate schedule.", _one_of("cosine", "linear", "constant", "one_cycle", "trapezoid")
    )
    warmup_fraction: float | None = _setting(None, "Share of the steps that warm up.", _between(0.0, 0.9))
    augment: str | None = _setting(None, "Augmentation of the training images.", _one_of("none", "light", "trivial"))
    label_smoothing: float | None = _setting(None, "Label smoothing.", _between(0.0, 1.0, open_high=True))
    ema: bool | None = _setting(None, "Validate and ship the running average of the weights.")
    clip_norm: float | None = _setting(None, "Largest gradient norm (0: no clipping).", _at_least(0))
    freeze_norm: bool | None = _setting(None, "Keep batch-norm statistics as pretrained.")
    drop_path: float | None = _setting(None, "Stochastic depth rate.", _between(0.0, 1.0, open_high=True))
    patience: int | None = _setting(None, "Stop a trial after this many epochs without gain (0: off).", _at_least(0))
    min_improvement: float | None = _setting(None, "Smallest gain that counts as one.", _at_least(0))


@dataclass(frozen=True)
class MachineSettings:
    """Where the work runs and what it may keep."""

    device: str = _setting("auto", "auto, cpu, cuda, cuda:N or mps.")
    precision: str = _setting(
        "auto", "auto, float32, bfloat16 or float16.", _one_of("auto", "float32", "bfloat16", "float16")
    )
    threads: int = _setting(0, "CPU threads (0: all that this process may use).", _at_least(0))
    cache: bool = _setting(True, "Keep decoded images for later runs.")
    cache_dir: str = _setting("", "Folder for decoded images (empty: the user's cache folder).")
    seed: int = _setting(0, "Seed of the split, the search and the training.", _at_least(0))


@dataclass(frozen=True)
class OutputSettings:
    """What is left on disk."""

    runs: str = _setting("runs", "Folder in which a run gets its own folder.")
    name: str = _setting("", "Name of the run's folder (empty: data set and date).")


@dataclass(frozen=True)
class Settings:
    """Every setting of a run, one attribute per table of the TOML file."""

    data: DataSettings = field(default_factory=DataSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)
    output: OutputSettings = field(default_factory=OutputSettings)

    @property
    def budget_seconds(self) -> float:
        """The budget in seconds."""
        return parse_duration(self.search.budget)


TABLES: dict[str, type[Any]] = {
    "data": DataSettings,
    "split": SplitSettings,
    "search": SearchSettings,
    "training": TrainingSettings,
    "machine": MachineSettings,
    "output": OutputSettings,
}


def setting_help(dotted: str) -> str:
    """Help text of a setting, by its dotted name ("search.budget")."""
    table, key = dotted.split(".")
    return str(_fields(table)[key].metadata["help"])


def load_settings(file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from a TOML file, with overrides by dotted name on top.

    Args:
        file: the TOML file; None for the defaults.
        overrides: dotted name -> value, as flags give them; values of None are passed over.

    Raises:
        ConfigError: with every problem of the file and the overrides at once.
    """
    raw = _read_toml(file) if file else {}
    given = {dotted: value for dotted, value in (overrides or {}).items() if value is not None}
    for dotted, value in given.items():
        table, key = dotted.split(".")
        raw.setdefault(table, {})[key] = value
    source = str(file) if file else "settings"
    problems: list[str] = [_unknown("table", name, TABLES) for name in raw if name not in TABLES]
    tables: dict[str, Any] = {}
    for name, table_type in TABLES.items():
        values, wrong = _checked(name, raw.get(name, {}))
        problems += wrong
        tables[name] = table_type(**values)
    problems += _across_tables(tables)
    if problems:
        raise ConfigError(
            f"{len(problems)} problem{'s' * (len(problems) > 1)} in {source}",
            value="\n  - " + "\n  - ".join(problems),
            fix="correct them; docs/settings.md lists every setting",
        )
    return Settings(**tables)


def dump_settings(settings: Settings) -> str:
    """The settings as TOML that `load_settings` reads back to an equal value."""
    lines: list[str] = []
    for table in TABLES:
        lines.append(f"[{table}]")
        for key, value in vars(getattr(settings, table)).items():
            if value is not None:
                lines.append(f"{key} = {_toml(value)}")
        lines.append("")
    return "\n".join(lines)


def _across_tables(tables: Mapping[str, Any]) -> list[str]:
    split = tables["split"]
    if split.test + split.val >= 1:
        return [f"split.test + split.val leave nothing to train on, got {split.test} + {split.val}"]
    return []


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("cannot read the settings file", value=f"{file} ({error})", fix="check the path") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("the settings file is not TOML", value=f"{file}: {error}", fix="correct that line") from None


def _fields(table: str) -> dict[str, dataclasses.Field[Any]]:
    return {each.name: each for each in dataclasses.fields(TABLES[table])}


def _unknown(what: str, name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown {what} '{name}'" + (f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}")


def _checked(table: str, raw: object) -> tuple[dict[str, Any], list[str]]:
    if not isinstance(raw, dict):
        return {}, [f"'{table}' must be a table, got {raw!r}"]
    known = _fields(table)
    hints = typing.get_type_hints(TABLES[table])
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in raw.items():
        if key not in known:
            problems.append(_unknown("setting", key, known).replace(f"'{key}'", f"'{table}.{key}'", 1))
            continue
        value = float(value) if _wants(float, hints[key]) and type(value) is int else value
        wrong = "" if _fits(value, hints[key]) else f"must be {_type_name(hints[key])}"
        check = known[key].metadata["check"]
        wrong = wrong or (check(value) if check and value is not None else "")
        if wrong:
            problems.append(f"{table}.{key} {wrong}, got {value!r}")
        else:
            values[key] = value
    return values, problems


def _wants(kind: type, hint: Any) -> bool:
    return hint is kind or (isinstance(hint, types.UnionType) and kind in typing.get_args(hint))


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    return type(value) is hint


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_type_name(each) for each in typing.get_args(hint) if each is not type(None))
    if typing.get_origin(hint) is list:
        return f"a list of {_type_name(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is dict:
        return f"a table of {_type_name(typing.get_args(hint)[1])}"
    names = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(hint, str(hint))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _toml_text(value)
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_text(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return repr(value)


def _toml_text(text: str) -> str:
    escapes = {'"': '\\"', "\\": "\\\\"}
    shown = (escapes.get(c) or (c if c.isprintable() else f"\\U{ord(c):08x}") for c in text)
    return '"' + "".join(shown) + '"'
