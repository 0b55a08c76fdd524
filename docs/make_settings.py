"""Write docs/settings.md from the settings themselves, so that the page and the program cannot drift apart.

python docs/make_settings.py
"""

from __future__ import annotations

from pathlib import Path

from automl_vision.config import TABLES, SettingInfo, list_settings

PAGE = Path(__file__).parent / "settings.md"

OPENING = """# Settings

<!-- Written by docs/make_settings.py. Change the help texts in src/automl_vision/config.py instead. -->

A run is described by one TOML file, given with `--config FILE`. Every setting has a default, so the file
names only what differs; a flag on the command line overrides the file. All problems of a file are reported at
once. The settings that a run really used are written to `config.toml` in its folder, which can be given to
`--config` again.

Ready files: [quick](../configs/quick.toml) (2 minutes), [standard](../configs/standard.toml) (10 minutes),
[thorough](../configs/thorough.toml) (1 hour), [smoke](../configs/smoke.toml) (seconds, for continuous
integration).
"""

HEAD = "| setting | default | accepts | meaning |\n|---|---|---|---|"


def settings_page() -> str:
    """The whole page as Markdown."""
    return "\n".join([OPENING, *(_section(table) for table in TABLES)])


def _section(table: str) -> str:
    rows = [_row(each) for each in list_settings() if each.name.startswith(f"{table}.")]
    return "\n".join([f"## [{table}]\n", TABLES[table].__doc__ or "", "", HEAD, *rows, ""])


def _row(each: SettingInfo) -> str:
    accepts = f"{each.kind}: {each.allowed}" if each.allowed else each.kind
    default = f"`{each.default}`" if each.default else "left to the search"
    cells = [f"`{each.name.partition('.')[2]}`", default, accepts, each.help]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
