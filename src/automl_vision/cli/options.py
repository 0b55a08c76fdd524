"""Options that override settings, made from the settings themselves: name, type and help are written once."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from automl_vision.config import TABLES, accepts_number, list_settings, setting_help, setting_hint
from automl_vision.errors import ConfigError

#: Options that are not simply named after their setting.
FLAGS: dict[str, tuple[str, ...]] = {
    "search.budget": ("--budget", "-b"),
    "split.test": ("--test-share",),
    "split.val": ("--val-share",),
    "search.offline": ("--offline/--online",),
    "data.drop_small_classes": ("--drop-small-classes/--keep-small-classes",),
    "output.runs": ("--runs",),
}
#: How tables are written on a command line, and an example.
_PAIRS: dict[str, tuple[str, str]] = {
    "search.weights": ("NAME=PATH", "resnet18=weights.pth"),
    "data.split_names": ("NAME=SET", "extra=train"),
}
#: Lists that may also be given one by one; of the others the last one given counts.
_REPEATED = frozenset(("output.track",))
#: Titles under which `--help` groups the options.
PANELS: dict[str, str] = {
    "data": "Data",
    "split": "Sets",
    "search": "Search",
    "limits": "Limits of the shipped model",
    "training": "Training (pins a value for every candidate)",
    "machine": "Machine",
    "output": "Output",
}


def with_settings(*tables: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per setting of `tables`; it receives those given as `overrides` by dotted name."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command)
        hints = typing.get_type_hints(command, include_extras=True)
        added = {key: dotted for dotted in _settings_of(tables) for key in (_parameter(dotted),)}

        @functools.wraps(command)
        def run(**given: Any) -> None:
            overrides = {dotted: _value(dotted, given.pop(name)) for name, dotted in added.items()}
            command(**given, overrides=overrides)

        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
            for name, parameter in own.parameters.items()
            if name != "overrides"
        ]
        parameters += [_as_parameter(name, dotted) for name, dotted in added.items()]
        run.__signature__ = own.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined] # typer reads it
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _settings_of(tables: tuple[str, ...]) -> list[str]:
    wanted = {table for table in tables if table in TABLES}
    return [each.name for each in list_settings() if each.name.split(".")[0] in wanted or each.name in tables]


def _parameter(dotted: str) -> str:
    return dotted.split(".")[1]


def _as_parameter(name: str, dotted: str) -> inspect.Parameter:
    kind = _option_type(dotted)
    option = typer.Option(
        *_flags(dotted, is_switch=kind is bool),
        help=_help(dotted),
        show_default=False,
        rich_help_panel=PANELS[dotted.split(".")[0]],
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _help(dotted: str) -> str:
    """The setting's own help, and what a command line needs to know beyond it."""
    pairs = f" {_PAIRS[dotted][0]}; may be repeated." if dotted in _PAIRS else ""
    how = {list: " Separated by commas, or repeated." if dotted in _REPEATED else " Separated by commas.", dict: pairs}
    return setting_help(dotted) + how.get(typing.get_origin(setting_hint(dotted)), "") + _choices(dotted)


def _choices(dotted: str) -> str:
    """The values that a setting accepts, where they are a few names that its help does not mention."""
    allowed = next(each.allowed for each in list_settings() if each.name == dotted)
    names = allowed.removeprefix("one of ").split(", ") if allowed.startswith("one of ") else []
    unsaid = [name for name in names if name not in setting_help(dotted)]
    return f" One of {', '.join(names)}." if unsaid else ""


def _flags(dotted: str, *, is_switch: bool) -> tuple[str, ...]:
    if dotted in FLAGS:
        return FLAGS[dotted]
    name = _parameter(dotted).replace("_", "-")
    return (f"--{name}/--no-{name}",) if is_switch else (f"--{name}",)


def _option_type(dotted: str) -> Any:
    """How a setting is typed on the command line: lists as comma-separated text, tables as repeated NAME=VALUE."""
    hint = setting_hint(dotted)
    if dotted in _REPEATED:
        return list[str]
    return {list: str, dict: list[str]}.get(typing.get_origin(hint), hint)


def _value(dotted: str, given: Any) -> Any:
    if given is None or given == []:  # an option that may be repeated and was not given
        return None
    hint = setting_hint(dotted)
    origin = typing.get_origin(hint)
    if origin is list:
        return _listed(_flags(dotted, is_switch=False)[0], given, typing.get_args(hint)[0])
    if origin is dict:
        return _named(_flags(dotted, is_switch=False)[0], given, *_PAIRS[dotted])
    return _number_or_text(given) if accepts_number(dotted) else given


def _number_or_text(given: str) -> int | str:
    try:
        return int(given)
    except ValueError:
        return given


def _listed(option: str, given: str | list[str], kind: type) -> list[Any]:
    text = given if isinstance(given, str) else ",".join(given)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return [kind(part) for part in parts]
    except ValueError:
        raise ConfigError(f"{option} takes whole numbers", value=repr(text), fix="write them like 96,128") from None


def _named(option: str, pairs: list[str], form: str, example: str) -> dict[str, str] | None:
    named = dict(pair.partition("=")[::2] for pair in pairs)
    wrong = [name for name, value in named.items() if not value]
    if wrong:
        raise ConfigError(f"{option} takes {form}", value=repr(wrong[0]), fix=f"write it like {example}")
    return named or None
