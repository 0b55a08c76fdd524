"""Settings: one dataclass per table of the TOML file, checked as a whole before anything starts.

The help text of a command-line option is the help of the setting it overrides, so the two cannot drift apart.
Nothing heavy is imported here: `--help` reads this file.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from automl_vision.errors import ConfigError
from automl_vision.rules import (
    BATCH_SIZE,
    BYTES,
    CLUSTER_ADDRESS,
    DEVICE,
    FOLDER_NAME,
    NAMES,
    OPTIONAL_BURST_WINDOW,
    OPTIONAL_DURATION,
    PATH,
    REGEX,
    REGEX_WITH_KEY,
    SEED,
    SETS_BY_NAME,
    SIDES,
    TRACKED_BY,
    TRIALS_URL,
    Rule,
    above,
    at_least,
    below,
    between,
    one_of,
)
from automl_vision.rules import parse_duration as parse_duration

#: Where neither a budget nor a number of trials is given.
DEFAULT_BUDGET = "10m"


#: Settings that say where a run works, and not what it is: a resumed run may have them anew.
MOVABLE = ("machine.cluster", "machine.insecure_cluster", "machine.max_parallel", "machine.gpus_per_trial")


def _setting(default: Any, help_text: str, rule: Rule | None = None) -> Any:
    metadata = {"help": help_text, "rule": rule}
    if isinstance(default, list | dict):
        return field(default_factory=type(default), metadata=metadata)  # every mutable default is empty
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DataSettings:
    """What is read, and how rows are understood."""

    image_column: str = _setting(
        "", "Column with the image paths of a table, or the images of a data set (found when left out)."
    )
    label_column: str = _setting("", "Column with the labels of a table or a data set (found when left out).")
    split_column: str = _setting("", "Column that says train, val or test (default: 'split' where there is one).")
    group_column: str = _setting("", "Column of what must stay together: patient, video ... (default: 'group').")
    augmented_column: str = _setting("", "Column that marks augmented copies (default: 'is_augmented').")
    split_names: dict[str, str] = _setting(
        {},
        "What the parts of a data set are that are not called train, validation or test: train, val, test, or none "
        "(left out).",
        SETS_BY_NAME,
    )
    label_map: str = _setting("", "CSV of two columns, fine label and coarse label: merges classes.", PATH)
    group_regex: str = _setting(
        "",
        "Regular expression on the relative path; its first group names what must stay together.",
        REGEX_WITH_KEY,
    )
    original_regex: str = _setting(
        "",
        "Regular expression on the relative path; paths it matches are originals, all others copies.",
        REGEX,
    )
    lineage: str = _setting(
        "full",
        "full: what the pictures show tells copies, whatever they are called, and file and folder names of known tools "
        "do; names: only names do; off: only columns, regular expressions and equal pixels.",
        one_of("full", "names", "off"),
    )
    burst_window: str = _setting(
        "",
        "Keep bursts and frames of videos together: images of one folder whose file numbers (3), camera times (2s) or "
        "either (3,2s) are that near (empty: off).",
        OPTIONAL_BURST_WINDOW,
    )
    draft: bool = _setting(
        True,
        "Decode JPEGs whose sides are at least 4 times those of the largest stored square (and 512 px) at 1/2, 1/4 or "
        "1/8 of their size, which takes less time; the model file says so, and predictions follow it.",
    )
    resize: str = _setting(
        "auto",
        "How an image becomes a square: squash takes the whole of it, whatever its aspect; middle the largest square "
        "in its middle; auto tries both on frozen features where images are not square and there is time, and "
        "validation decides.",
        one_of("auto", "squash", "middle"),
    )
    max_samples: int = _setting(0, "Use at most this many images, stratified, whole groups (0: all).", at_least(0))
    skip_bad_rows: bool = _setting(False, "Quarantine rows of a table that name a missing file or no label.")
    max_unreadable: float = _setting(
        0.2,
        "Stop, with a list, where more than this share of the images cannot be read: what is left may be another set "
        "than you mean.",
        between(0.0, 1.0),
    )
    allow_outside: bool = _setting(False, "Accept paths in a table that lead out of the table's folder.")
    drop_small_classes: bool = _setting(False, "Leave out classes with too few originals to split, and say so.")
    check_shards: str = _setting(
        "auto",
        "What of shards is read and compared with its digest before anything else: auto (all images of shards that are "
        "files of this machine; of others the sizes), all, or sizes. Whatever is read later is compared then.",
        one_of("auto", "all", "sizes"),
    )
    shard_window: str = _setting(
        "4G",
        "What shards may take on this machine that are fetched from a URL; those used longest ago give way.",
        BYTES,
    )
    allow_private: bool = _setting(
        False, "Read shards also from https hosts in private networks, and from this machine itself."
    )


@dataclass(frozen=True)
class SplitSettings:
    """How much of the originals each set gets, where the data bring no split of their own."""

    test: float = _setting(0.2, "Share of the originals that is kept for the one final test.", between(0.01, 0.8))
    val: float = _setting(0.2, "Share of the originals that chooses between candidates.", between(0.01, 0.8))


@dataclass(frozen=True)
class SearchSettings:
    """What is searched, and for how long."""

    budget: str = _setting(
        "",
        "Wall-clock budget from start to report: 90s, 10m, 1h30m (empty: 10m, or none where trials is set).",
        OPTIONAL_DURATION,
    )
    budget_per_backbone: str = _setting(
        "",
        "Instead of a budget: the same search time for each of the named backbones, one after the other; preparing the "
        "images, testing and the report come on top.",
        OPTIONAL_DURATION,
    )
    trials: int = _setting(
        0,
        "Stop after this many fine-tunes (0: the budget decides). 1 with values of [training]: that one recipe is "
        "trained as it was given, and is the model.",
        at_least(0),
    )
    objective: str = _setting(
        "auto",
        "What validation maximises; auto: macro_f1 if the largest class is over 3 times the smallest, else accuracy.",
        one_of("auto", "accuracy", "macro_f1", "balanced_accuracy"),
    )
    sampler: str = _setting(
        "auto",
        "How new recipes are proposed: tpe (Parzen estimators), gp (Bayesian optimisation with a Gaussian process), "
        "cmaes (evolution strategy), random (chance), or auto, which is tpe.",
        one_of("auto", "tpe", "gp", "random", "cmaes"),
    )
    head: str = _setting(
        "linear",
        "Head on frozen features: linear, or also mlp (one hidden layer) or darts (hidden layers found by "
        "differentiable architecture search), kept only where it beats the linear one by more than a standard error.",
        one_of("linear", "mlp", "darts"),
    )
    backbones: list[str] = _setting(
        [], "Backbones to search: table names or any timm name (empty: chosen for you).", NAMES
    )
    weights: dict[str, str] = _setting({}, "Local weights file per backbone: name -> path (.safetensors, .pth).")
    pretrained: bool = _setting(True, "Start from pretrained weights.")
    resolutions: list[int] = _setting([], "Input sides in pixels to search (empty: chosen for you).", SIDES)
    offline: bool = _setting(False, "Never ask the weight hub; use what is on this machine.")
    ensemble: bool = _setting(
        False,
        "Let up to three networks vote, where that beats one by more than a standard error; predictions then cost up "
        "to three times as much.",
    )
    refit: str = _setting(
        "auto",
        "Train the model once more on training and validation images: auto (a fine-tune, where a budget leaves the "
        "time and the validation images were dealt here), on (time is kept for it), off.",
        one_of("auto", "on", "off"),
    )
    measure_impact: bool = _setting(
        False,
        "Measure what copies on both sides of a naive random split would add to a figure (up to 10 % of the budget).",
    )


@dataclass(frozen=True)
class LimitSettings:
    """What the shipped model may cost; what cannot meet it is not trained."""

    max_latency_ms: float | None = _setting(
        None,
        "Milliseconds that the model may take for one decoded image, as the median of passes on the device of the run, "
        "with its threads.",
        above(0),
    )
    max_size_mb: float | None = _setting(None, "Megabytes (of a million bytes) that model.pt may have.", above(0))
    max_params_m: float | None = _setting(
        None, "Millions of parameters that the model may have, those of all its networks together.", above(0)
    )


@dataclass(frozen=True)
class TrainingSettings:
    """Values that are pinned for every recipe. What is left out is searched, or set by a rule."""

    epochs: int | None = _setting(None, "Epochs of every fine-tune.", between(1, 10_000))
    batch_size: int | str | None = _setting(
        None,
        "Images at once, before gradient accumulation (left out: 32 in default recipes, 16 to 128 in others); auto: "
        "32, 64 or 128 per optimizer step, by the number of training images. Where memory is too small, parts of it "
        "are taken one after the other.",
        BATCH_SIZE,
    )
    gradient_accumulation: int | None = _setting(
        None,
        "Batches whose gradients are averaged for one optimizer step: it sees batch_size times so many images.",
        between(1, 1024),
    )
    optimizer: str | None = _setting(None, "Optimizer of every fine-tune.", one_of("adamw", "adam", "sgd"))
    learning_rate: float | None = _setting(
        None, "Peak learning rate, used as it is; one that is searched goes with the batch size.", between(1e-7, 10.0)
    )
    weight_decay: float | None = _setting(None, "Weight decay.", between(0.0, 1.0))
    momentum: float | None = _setting(None, "SGD momentum or Adam beta1.", below(0.0, 1.0))
    layer_decay: float | None = _setting(None, "Learning-rate factor per layer towards the input.", between(0.1, 1.0))
    schedule: str | None = _setting(
        None, "Learning-rate schedule.", one_of("cosine", "linear", "constant", "one_cycle", "trapezoid")
    )
    warmup_fraction: float | None = _setting(None, "Share of the steps that warm up.", between(0.0, 0.9))
    augment: str | None = _setting(
        None,
        "Augmentation of the training images: none, light (crops), trivial (crops, TrivialAugment), randaugment "
        "(crops, RandAugment) or geometric (rotation, shear, scale, translation); all but none come with flips.",
        one_of("none", "light", "trivial", "randaugment", "geometric"),
    )
    horizontal_flip: bool | None = _setting(
        None, "Mirror half of the training images left-right (left out: unless a test on features says no)."
    )
    vertical_flip: bool | None = _setting(None, "Mirror half of the training images upside-down.")
    quarter_turns: bool | None = _setting(None, "Turn training images by 0, 90, 180 or 270 degrees.")
    erasing: float | None = _setting(None, "Share of the training images with a rectangle erased.", between(0.0, 1.0))
    mix: str | None = _setting(
        None,
        "Mix pairs of training images and their labels: none, mixup (faded into each other) or cutmix (a rectangle of "
        "the other).",
        one_of("none", "mixup", "cutmix"),
    )
    loss: str | None = _setting(
        None,
        "Training loss: cross_entropy, logit_adjusted (by the frequencies of the classes) or weighted (rare classes "
        "count more).",
        one_of("cross_entropy", "logit_adjusted", "weighted"),
    )
    sampling: str | None = _setting(
        None,
        "What an epoch shows: shuffled (every image once) or balanced (rare classes more often).",
        one_of("shuffled", "balanced"),
    )
    label_smoothing: float | None = _setting(None, "Label smoothing.", below(0.0, 1.0))
    ema: bool | None = _setting(None, "Validate and ship the running average of the weights.")
    clip_norm: float | None = _setting(None, "Largest gradient norm (0: no clipping).", at_least(0))
    freeze_norm: bool | None = _setting(None, "Keep batch-norm statistics as pretrained.")
    head_from_probe: bool | None = _setting(
        None,
        "Start the head from a linear probe on frozen features, else from random weights. Off with trials = 1, one "
        "backbone and no budget (or pinned epochs), no probe is fitted at all.",
    )
    freeze_stages: int | None = _setting(
        None, "Stages of the backbone, of four, that stay as pretrained, counted from the input.", between(0, 3)
    )
    drop_path: float | None = _setting(None, "Stochastic depth rate.", below(0.0, 1.0))
    patience: int | None = _setting(None, "Stop a trial after this many epochs without gain (0: off).", at_least(0))
    min_improvement: float | None = _setting(None, "Smallest gain that counts as one.", at_least(0))


@dataclass(frozen=True)
class MachineSettings:
    """Where the work runs and what it may keep."""

    device: str = _setting("auto", "Where the networks run; auto takes a GPU where there is one.", DEVICE)
    precision: str = _setting(
        "auto",
        "Number format of the networks; auto: bfloat16 or float16 on CUDA, else float32; "
        "CPUs that multiply bfloat16 train in it where batch norm keeps its statistics.",
        one_of("auto", "float32", "bfloat16", "float16"),
    )
    compile: str = _setting(
        "off",
        "Compile training steps (torch.compile; CUDA graphs for small networks): off, auto (on a GPU, where the rest "
        "of a fine-tune is expected to repay it) or on (wherever there is time for it, on a CPU too). What it gains "
        "on GPUs was not measured yet.",
        one_of("off", "auto", "on"),
    )
    threads: int = _setting(0, "CPU threads (0: all that this process may use).", between(0, 4096))
    cluster: str = _setting(
        "",
        "Ray cluster on which trials run: HOST:PORT of its head, or auto for the one that this machine is a node of "
        "(empty: this machine alone; extra ray).",
        CLUSTER_ADDRESS,
    )
    insecure_cluster: bool = _setting(
        False, "Accept a cluster without token authentication: whoever reaches its ports runs programs on it."
    )
    cache: bool = _setting(True, "Keep decoded images for later runs.")
    decode_ahead: bool = _setting(
        True,
        "Decode all images before training, into a file (or memory, where no disk has room). Off: each whenever it is "
        "asked for, so that neither disk nor memory grows with their number; every epoch decodes them anew.",
    )
    cache_dir: str = _setting("", "Folder for decoded images (empty: the user's cache folder).", PATH)
    cache_gigabytes: float | None = _setting(
        None,
        "What decoded images of earlier runs may take; those used longest ago give way, none of the last day (left "
        "out: a fifth of the disk, at most 200).",
        between(0, 1_000_000),
    )
    ddp: int = _setting(
        1,
        "Processes that train one model together, each on its part of every batch (torch.distributed; 0: one for each "
        "GPU of this machine, or of the cluster). They are started by torchrun, on a cluster by Ray, or joined where "
        "torchrun has started this one. On GPUs not measured yet.",
        between(0, 4096),
    )
    max_parallel: int = _setting(
        0,
        "Trials at a time, each in a process of its own with its share of the threads (0: one on a CPU, in this very "
        "process; one on each GPU). Where more are wanted than there are GPUs, a training step of the dearest backbone "
        "is tried, and no more trials share a GPU than its memory has room for, 4 at most; not measured on GPUs yet.",
        between(0, 1024),
    )
    gpus_per_trial: float | None = _setting(
        None,
        "GPUs that a trial has: at 0.5 two trials share one (left out: a whole one, or what max_parallel leaves it).",
        between(0.05, 1.0),
    )
    seed: int = _setting(0, "Seed of the split, the search and the training.", SEED)


@dataclass(frozen=True)
class OutputSettings:
    """What is left on disk."""

    runs: str = _setting("runs", "Folder in which a run gets its own folder.", PATH)
    name: str = _setting("", "Name of the run's folder (empty: data set and date).", FOLDER_NAME)
    fingerprint: bool = _setting(
        True,
        "Keep digests of the images in model.pt, so that evaluate can tell which images the model knows; they tell "
        "whoever has an image whether it was used.",
    )
    history: bool = _setting(
        True,
        "Append what each rung came to to history.jsonl in the user's state folder: recipe and figures, no path, no "
        "class name, no picture. It stays on this machine.",
    )
    track: list[str] = _setting(
        [],
        "Show the search in tensorboard, mlflow or wandb as well: settings, epochs, figures and the report (extra "
        "track).",
        TRACKED_BY,
    )
    trials_url: str = _setting(
        "",
        "Where trials keep their checkpoints, weights and records: a folder that every machine sees, or an address "
        "like s3://bucket/run (empty: the run folder). The run folder gets a copy of the records.",
        TRIALS_URL,
    )
    kept_checkpoints: int = _setting(
        3, "Fine-tunes, best first, whose weights stay in the run folder; those of probes stay as well.", at_least(1)
    )


@dataclass(frozen=True)
class Settings:
    """Every setting of a run, one attribute per table of the TOML file."""

    data: DataSettings = field(default_factory=DataSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)
    output: OutputSettings = field(default_factory=OutputSettings)

    @property
    def budget_seconds(self) -> float:
        """The budget in seconds; infinity where only the number of trials ends the search.

        Where each backbone has a time of its own, that of all together.
        """
        if self.seconds_per_backbone is not None:
            return self.seconds_per_backbone * len(set(self.search.backbones))
        if self.search.budget:
            return parse_duration(self.search.budget)
        return math.inf if self.search.trials else parse_duration(DEFAULT_BUDGET)

    @property
    def seconds_per_backbone(self) -> float | None:
        """Search time of each backbone in seconds; None where they share the budget."""
        each = self.search.budget_per_backbone
        return parse_duration(each) if each else None


TABLES: dict[str, type[Any]] = {
    "data": DataSettings,
    "split": SplitSettings,
    "search": SearchSettings,
    "limits": LimitSettings,
    "training": TrainingSettings,
    "machine": MachineSettings,
    "output": OutputSettings,
}


@dataclass(frozen=True)
class SettingInfo:
    """One setting, described for people.

    Attributes:
        name: dotted name, "search.budget".
        kind: what is written: "text", "a whole number", "true or false" ...
        default: the default as TOML; empty where there is none.
        allowed: accepted values in words; empty where every value of the kind is.
        help: one or two sentences.
    """

    name: str
    kind: str
    default: str
    allowed: str
    help: str


def list_settings() -> tuple[SettingInfo, ...]:
    """Every setting in the order of the tables."""
    return tuple(_info(table, each) for table in TABLES for each in _fields(table).values())


def setting_names() -> dict[str, str]:
    """Key -> dotted name, of every setting; keys are unique over all tables."""
    return {setting.name.split(".")[1]: setting.name for setting in list_settings()}


def setting_help(dotted: str) -> str:
    """Help text of a setting, by its dotted name ("search.budget"); `KeyError` for an unknown name."""
    table, _, key = dotted.partition(".")
    return str(_fields(table)[key].metadata["help"])


def setting_hint(dotted: str) -> Any:
    """Type of a setting, without the None of an optional one; text where it may also be something else.

    Raises:
        KeyError: an unknown name.
    """
    table, _, key = dotted.partition(".")
    hint = _hints(table)[key]
    if isinstance(hint, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return str if str in options else options[0]
    return hint


def accepts_number(dotted: str) -> bool:
    """Whether a setting that is written as text ("auto") may be a whole number instead."""
    table, _, key = dotted.partition(".")
    return _wants(int, _hints(table)[key]) and _wants(str, _hints(table)[key])


@cache
def _hints(table: str) -> dict[str, Any]:
    return typing.get_type_hints(TABLES[table])


def load_settings(file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from a TOML file, with overrides by dotted name on top.

    Args:
        file: the TOML file; None for the defaults.
        overrides: dotted name -> value, as flags give them; values of None are passed over.

    Raises:
        ConfigError: with every problem of the file and the overrides at once.
    """
    given = {dotted: value for dotted, value in (overrides or {}).items() if value is not None}
    raw = _read_toml(file) if file else {}
    merged = _merge(raw, given)
    problems = [_unknown_table(name) for name in merged if name not in TABLES]
    tables: dict[str, Any] = {}
    for name, table_type in TABLES.items():
        values, wrong = _checked(name, merged.get(name, {}))
        problems += wrong
        tables[name] = table_type(**values)
    problems += _across_tables(tables)
    if problems:
        raise _all_problems(problems, file, given)
    return Settings(**tables)


def load_dumped_settings(file: Path) -> Settings:
    """Settings from a file that `dump_settings` wrote, all of it.

    Raises:
        ConfigError: a value is wrong, or the file was cut off: what is missing would be taken for what was never set.
    """
    settings = load_settings(file)
    last = f"[{list(TABLES)[-1]}]"
    if last not in file.read_text(encoding="utf-8").splitlines():
        value, fix = f"{file} ({last} is missing: it was cut off)", "restore it from a copy, or start a new run"
        raise ConfigError("a file of settings is damaged", value=value, fix=fix)
    return settings


def dump_settings(settings: Settings) -> str:
    """The settings as TOML that `load_settings` reads back to an equal value."""
    lines: list[str] = []
    for table in TABLES:
        lines.append(f"[{table}]")
        values = vars(getattr(settings, table)).items()
        lines += [f"{key} = {_toml(value)}" for key, value in values if value is not None]
        lines.append("")
    return "\n".join(lines)


def _all_problems(problems: list[str], file: Path | None, given: Mapping[str, Any]) -> ConfigError:
    source = str(file) if file else "the settings"
    if file and given:
        source += " and the options given with it"
    return ConfigError(
        f"{len(problems)} problem{'s' * (len(problems) > 1)} in {source}",
        value="\n  - " + "\n  - ".join(problems),
        fix="correct them; docs/settings.md lists every setting",
    )


def _merge(raw: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The file's tables with the given values on top; what is no table is left for the checks to name."""
    merged: dict[str, Any] = {name: dict(v) if isinstance(v, dict) else v for name, v in raw.items()}
    for dotted, value in given.items():
        table, _, key = dotted.partition(".")
        target = merged.setdefault(table, {})
        if not key:
            merged[table] = value
        elif isinstance(target, dict):
            target[key] = value
    return merged


def _across_tables(tables: Mapping[str, Any]) -> list[str]:
    split, search, machine = tables["split"], tables["search"], tables["machine"]
    checks = {
        f"split.test + split.val leave nothing to train on, got {split.test} + {split.val}": split.test + split.val
        >= 1,
        "search.budget and search.budget_per_backbone exclude each other; leave one empty": (
            search.budget and search.budget_per_backbone
        ),
        "search.budget_per_backbone needs to know whose it is: name search.backbones": (
            search.budget_per_backbone and not search.backbones
        ),
        "machine.ddp trains one model at a time, machine.max_parallel several; leave one out": (
            machine.ddp != 1 and machine.max_parallel > 1
        ),
    }
    return [problem for problem, is_so in checks.items() if is_so]


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        # utf-8-sig: some Windows editors put a byte-order mark in front.
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError("cannot read the settings file", value=f"{file} ({reason})", fix="check the path") from None
    except UnicodeDecodeError:
        raise ConfigError("the settings file is not UTF-8", value=file, fix="save it as UTF-8") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, or a number of 5,000 digits
        raise ConfigError(
            "the settings file is not TOML",
            value=f"{file}: {error}",
            fix="correct that line; text needs quotes",
        ) from None


def _fields(table: str) -> dict[str, dataclasses.Field[Any]]:
    return {each.name: each for each in dataclasses.fields(TABLES[table])}


def _info(table: str, each: dataclasses.Field[Any]) -> SettingInfo:
    rule = each.metadata["rule"]
    default = _default(each)
    return SettingInfo(
        name=f"{table}.{each.name}",
        kind=_type_name(_hints(table)[each.name]),
        default="" if default is None else _toml(default),
        allowed=rule.allowed if rule else "",
        help=each.metadata["help"],
    )


def _default(each: dataclasses.Field[Any]) -> Any:
    return each.default if each.default_factory is dataclasses.MISSING else each.default_factory()


def _unknown_table(name: str) -> str:
    return f"unknown table '{name}'{_suggest(name, TABLES)}"


def _unknown_setting(table: str, key: str) -> str:
    return f"unknown setting '{table}.{key}'{_suggest(key, _fields(table), prefix=f'{table}.')}"


def _suggest(name: str, known: Mapping[str, Any], *, prefix: str = "") -> str:
    """The known name that was probably meant: here, or the same name in another table."""
    near = [f"{prefix}{each}" for each in difflib.get_close_matches(name.lower(), known, n=1)]
    elsewhere = [f"{table}.{name}" for table in TABLES if name in _fields(table)]
    meant = next(iter(elsewhere + near), None)
    return f"; did you mean '{meant}'?" if meant else f"; known: {', '.join(known)}"


def _checked(table: str, raw: object) -> tuple[dict[str, Any], list[str]]:
    if not isinstance(raw, dict):
        return {}, [f"'{table}' must be a table, got {raw!r}"]
    hints = typing.get_type_hints(TABLES[table])
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, given in raw.items():
        if key not in hints:
            problems.append(_unknown_setting(table, key))
            continue
        value = _as_float(given) if _wants(float, hints[key]) else given
        wrong = _wrong(value, hints[key], _fields(table)[key].metadata["rule"])
        if wrong:
            problems.append(f"{table}.{key} {wrong}, got {given!r}")
        else:
            values[key] = value
    return values, problems


def _wrong(value: Any, hint: Any, rule: Rule | None) -> str:
    if not _fits(value, hint):
        return f"must be {_type_name(hint)}"
    if not _is_unicode(value):
        return "must be valid Unicode text"
    return rule.check(value) if rule and value is not None else ""


def _as_float(value: Any) -> Any:
    """A whole number as the float that was asked for; anything else, or one beyond all floats, as it came."""
    if type(value) is not int:
        return value
    try:
        return float(value)
    except OverflowError:
        return value


def _is_unicode(value: Any) -> bool:
    """False for text with lone surrogates (a file name that is not UTF-8): no settings file can hold it."""
    if isinstance(value, list):
        return all(_is_unicode(item) for item in value)
    if isinstance(value, dict):
        return all(_is_unicode(part) for pair in value.items() for part in pair)
    return not isinstance(value, str) or value == value.encode("utf-8", "ignore").decode("utf-8")


def _wants(kind: type, hint: Any) -> bool:
    return hint is kind or (isinstance(hint, types.UnionType) and kind in typing.get_args(hint))


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(key, arguments[0]) and _fits(item, arguments[1]) for key, item in value.items()
        )
    return type(value) is hint


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_type_name(each) for each in typing.get_args(hint) if each is not type(None))
    if typing.get_origin(hint) is list:
        return f"a list of {_plural(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is dict:
        return f"a table of {_type_name(typing.get_args(hint)[1])}"
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(hint, str(hint))


def _plural(kind: type) -> str:
    return {str: "texts", int: "whole numbers"}.get(kind, str(kind))


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
