"""Options that override settings: their help is the help of the setting, so that it is written once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from automl_vision.config import Settings, load_settings, parse_duration, setting_help
from automl_vision.errors import ConfigError


def setting_option(dotted: str, *names: str, panel: str | None = None) -> Any:
    """A typer option whose help text is that of the setting `dotted` ("search.budget")."""
    return typer.Option(*names, help=setting_help(dotted), show_default=False, rich_help_panel=panel)


def settings_from(config: Path | None, overrides: Mapping[str, Any]) -> Settings:
    """Settings of a file with the given options on top; options that were not given are None."""
    return load_settings(config, overrides)


def comma_separated(text: str | None) -> list[str] | None:
    """`a,b` -> `["a", "b"]`; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def whole_numbers(text: str | None, option: str) -> list[int] | None:
    """`96,128` -> `[96, 128]`.

    Raises:
        ConfigError: a part is no whole number.
    """
    parts = comma_separated(text)
    try:
        return None if parts is None else [int(part) for part in parts]
    except ValueError:
        raise ConfigError(f"{option} takes whole numbers", value=repr(text), fix="write them like 96,128") from None


def named_paths(pairs: list[str] | None, option: str) -> dict[str, str] | None:
    """`["name=path"]` -> `{"name": "path"}`.

    Raises:
        ConfigError: an entry has no `=`.
    """
    if not pairs:
        return None
    named = dict(pair.partition("=")[::2] for pair in pairs)
    wrong = [name for name, path in named.items() if not path]
    if wrong:
        raise ConfigError(f"{option} takes NAME=PATH", value=repr(wrong[0]), fix="write it like resnet18=weights.pth")
    return named


__all__ = ["comma_separated", "named_paths", "parse_duration", "setting_option", "settings_from", "whole_numbers"]
