"""The model card: what a run folder says of its model to whoever opens it on a forge or in a pager.

After Mitchell et al. 2019, "Model Cards for Model Reporting" (https://arxiv.org/abs/1810.03993).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from automl_vision.report.costs import shipped_line
from automl_vision.report.warnings import is_refitted

Report = Mapping[str, Any]

CLASSES = 100  # listed at most
_WORD_JOINER = "\u2060"

#: How a run's model is used; lines of Markdown.
USE = ("```", "automl-vision predict model.pt IMAGE", "```")


def model_card(report: Report, use: Sequence[str] = USE) -> str:
    """Markdown from the content of report.json, with how to use the file beside it."""
    test, model, data = report["test"], report["model"], report["data"]
    created = plain(str(report["created"]))
    accuracy, f1 = test["accuracy"], test["macro_f1"]
    counts = {name: sum(data["class_counts"][name]) for name in ("train", "val")}
    return "\n".join(
        [
            f"# {plain(report['name'])}",
            "",
            f"An image classifier of {len(test['classes'])} classes, found by automl-vision on {created}.",
            "",
            "## Model",
            "",
            f"- backbone: {plain(model['backbone'])}, {model['parameters']:,} parameters",
            f"- input: {plain(str(model['resolution']))} px",
            f"- classes: {_classes(test['classes'])}",
            f"- probabilities are calibrated (temperature {model['temperature']:.3f}{_fitted_when(report)})",
            "",
            "## Data",
            "",
            f"{data['images']:,} images; {counts['train']:,} trained on, {counts['val']:,} chosen with"
            f"{_once_more(report)}, {test['n']:,} tested on. `split.csv` says which, "
            "`audit.csv` what was found in them.",
            "",
            "## Figures on the test set",
            "",
            f"Originals that nothing was trained on or chosen with. The set was opened {_times(len(report['looks']))}.",
            "",
            "| figure | value | 95 % interval |",
            "|---|---|---|",
            _row("accuracy", accuracy),
            _row("macro F1", f1),
            "",
            *_costs(report),
            *_doubts(report["warnings"]),
            "## Use",
            "",
            *use,
            "",
            "The figures hold for images like those it was tested on. For another camera, place or time, measure "
            "again: `automl-vision evaluate model.pt --data OTHER`.",
            "",
        ]
    )


def _fitted_when(report: Report) -> str:
    return ", fitted before it was trained once more" if is_refitted(report) else ""


def _once_more(report: Report) -> str:
    return " and then trained on as well" if is_refitted(report) else ""


def _costs(report: Report) -> list[str]:
    known = plain(shipped_line(report))
    return ["## Costs", "", known, ""] if known else []


def _doubts(warnings: list[str]) -> list[str]:
    return ["## Before trusting them", "", *(f"- {plain(text)}" for text in warnings), ""] if warnings else []


def _row(name: str, figure: Mapping[str, float | None]) -> str:
    low, high = figure["low"], figure["high"]
    interval = "–" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    return f"| {name} | {figure['value']:.3f} | {interval} |"


def _classes(names: list[str]) -> str:
    more = f" and {len(names) - CLASSES} more" if len(names) > CLASSES else ""
    return ", ".join(plain(name) for name in names[:CLASSES]) + more


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def plain(text: str) -> str:
    """Foreign text on one line, with nothing in it that Markdown, HTML or a forge would act on.

    Forges link `@name` and addresses of mail wherever they stand in the finished page, so that no escape of Markdown
    keeps them from it: what follows an `@` is kept apart by a character that nobody sees.
    """
    one_line = "".join(character if character.isprintable() else "�" for character in text)
    marked = re.sub(r"([\\`*_{}\[\]<>()#|!~&])", r"\\\1", one_line)
    without_links = re.sub(r"(?i)(:)(?=//)|(?<=www)(\.)", r"\\\1\2", marked)  # forges link bare addresses
    return without_links.replace("@", f"@{_WORD_JOINER}")
