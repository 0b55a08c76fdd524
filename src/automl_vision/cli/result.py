"""The result of a command on stdout: a compact table for a person, JSON for a program."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from automl_vision.cli.terminal import safe, seconds_text, stdout

if TYPE_CHECKING:
    from automl_vision.pipeline import Evaluation, Run

CLASS_ROWS = 30

#: Why a search ended, to the person who waited for it.
ENDINGS = {
    "budget": "no further one fits into the budget",
    "trials": "as many as asked for",
    "converged": "validation leaves nothing to gain",
    "failures": "the newest fine-tunes all failed",
    "interrupted": "stopped by you",
}
#: Rows of the table of figures: name in the report, what a person calls it.
FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "roc_auc": "ROC AUC",
}


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, and nothing else."""
    stdout.file.write(json.dumps(value, ensure_ascii=True, allow_nan=False) + "\n")


def print_run(run: Run) -> None:
    """The verdict, the figures, the classes, the warnings, and what to type next."""
    report = run.report
    test = report["test"]
    accuracy = test["accuracy"]
    stdout.print()
    stdout.print(_images(report), style="dim", highlight=False)
    stdout.print(
        f"[bold]Test accuracy {100 * accuracy['value']:.1f} %[/bold], 95 % interval {100 * accuracy['low']:.1f} to "
        f"{100 * accuracy['high']:.1f} %, on {test['n']:,} originals that nothing was chosen with.",
        highlight=False,
    )
    stdout.print(_figures(report))
    stdout.print(_classes(test))
    _print_backbones(report)
    _print_choice(report)
    _print_costs(report)
    _print_impact(report)
    for warning in report["warnings"]:
        stdout.print(f"[yellow]![/yellow] {safe(warning)}", highlight=False)
    _print_next(run)


def _print_backbones(report: Mapping[str, Any]) -> None:
    """Backbones side by side, where each had a time of its own."""
    side_by_side = report.get("backbones")
    if not side_by_side:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("backbone")
    for name in ("validation", "test", "trials", "time"):
        table.add_column(name, justify="right")
    tested = report["test"][report["objective"]]
    for row in side_by_side["table"]:
        score = "-" if row["score"] is None else f"{row['score']:.3f}"
        opened = _value(tested) if row["winner"] else "not opened"
        style = "green" if row["winner"] else ""
        table.add_row(
            safe(row["backbone"]), score, opened, str(row["trials"]), seconds_text(row["seconds"]), style=style
        )
    stdout.print(table)
    stdout.print(
        f"{FIGURES.get(report['objective'], report['objective'])}, each backbone with "
        f"{seconds_text(side_by_side['seconds_each'])} of its own. Validation chose the winner; the test set was "
        "opened once, for the winner alone.",
        style="dim",
        highlight=False,
    )


def _print_choice(report: Mapping[str, Any]) -> None:
    """What having chosen on them does to the validation figures."""
    from automl_vision.report.finish import refit_sentence, selection_line

    for line in filter(None, (selection_line(report), refit_sentence(report))):
        stdout.print(safe(line), highlight=False)


def _print_costs(report: Mapping[str, Any]) -> None:
    """What the model costs, and what else could be had."""
    from automl_vision.report.costs import shipped_line

    if line := shipped_line(report):
        stdout.print(safe(line), highlight=False)


def _print_impact(report: Mapping[str, Any]) -> None:
    """What a naive split would have pretended, where that was asked for."""
    from automl_vision.report.impact import impact_line

    if report.get("impact"):
        stdout.print(safe(impact_line(report["impact"])), highlight=False)


def print_drop(found: Evaluation) -> None:
    """What became of the figures of the model's own test set, the classes that fell most first."""
    from automl_vision.report.shift import drop_sentences

    rows = found.drop.get("classes", [])
    if rows:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("recall")
        for name in ("own test", "here", "drop in points", "95 % interval"):
            table.add_column(name, justify="right")
        for row in sorted(rows, key=lambda each: -each["value"])[:CLASS_ROWS]:
            figures = (f"{row['before']:.3f}", f"{row['after']:.3f}", f"{100 * row['value']:.1f}")
            interval = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"
            table.add_row(safe(row["class"]), *figures, interval, style="yellow" if row["low"] > 0 else "")
        if len(rows) > CLASS_ROWS:
            table.add_row(f"... {len(rows) - CLASS_ROWS} more (--json)", "", "", "", "", style="dim")
        stdout.print(table)
    for sentence in drop_sentences(found.drop, found.missing):
        stdout.print(safe(sentence), highlight=False)


def print_evaluation(found: Evaluation, title: str) -> None:
    """The figures of a set, and what of it the model knows."""
    if found.figures is not None:
        stdout.print(_figures({"test": found.figures, "validation": None, "baselines": []}, title))
        stdout.print(_classes(found.figures))
        n, groups = found.figures["n"], found.figures["groups"]
        if groups < n:
            stdout.print(f"{n:,} images of {groups:,} originals, which is what the intervals go by.", highlight=False)
    print_drop(found)
    for sentence in _known(found.known, len(found.predictions)):
        stdout.print(sentence, highlight=False)


def _known(known: Mapping[str, Any], images: int) -> list[str]:
    if not known["checked"]:
        return [f"Whether the model knows these images cannot be checked: {known['reason']}."]
    seen, exactly = sum(known["seen"].values()), known["seen"]["exactly"]
    plain = (
        f" {known['too_plain']:,} are too plain to be recognised unless they are equal." if known["too_plain"] else ""
    )
    if not seen:
        return [f"None of the {images:,} images is known from training or validation.{plain}", *_look(known["look"])]
    counted = "They do not count above." if known["excluded"] else "They count above (--include-seen)."
    sentences = [
        f"[bold]{seen:,} of {images:,} images[/bold] were in training or validation: {exactly:,} exactly, "
        f"{seen - exactly:,} nearly (saved again, scaled, mirrored or turned). {counted}{plain}"
    ]
    figures = {"all images": known["all"], "new images": known["new"]}
    sentences += [
        f"Accuracy on {words}: {each['accuracy']['value']:.3f} ({each['accuracy']['low']:.3f} to "
        f"{each['accuracy']['high']:.3f}, {each['n']:,} images)"
        for words, each in figures.items()
        if each
    ]
    return sentences + _look(known["look"])


def _look(look: Mapping[str, Any] | None) -> list[str]:
    if look is None:
        return []
    unwritten = f" It is not in the ledger of the run: {safe(look['unwritten'])}." if look["unwritten"] else ""
    return [
        f"[yellow]![/yellow] {look['images']:,} of these are the model's own test images, or copies of them: this is "
        f"look {look['number']} at the test set. Choices made after a look make the test figure too good.{unwritten}"
    ]


def _images(report: Mapping[str, Any]) -> str:
    """What the images were used for."""
    from automl_vision.report.warnings import is_refitted

    data = report["data"]
    used = {name: sum(data["class_counts"][name]) for name in ("train", "val", "test")}
    counts = {
        "to train": used["train"],
        "to choose, then to train" if is_refitted(report) else "to choose": used["val"],
        "to test": used["test"],
        "set aside": data["aside"],
        "unreadable": data["quarantined"],
    }
    parts = ", ".join(f"{count:,} {use}" for use, count in counts.items() if count)
    return f"{data['images']:,} images ({data['copies']:,} of them copies): {parts}."


def _figures(report: Mapping[str, Any], title: str = "test") -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for name in (title, "95 % interval"):
        table.add_column(name, justify="right")
    validation = report["validation"]
    if validation:
        table.add_column("validation", justify="right")
    for name, words in FIGURES.items():
        figure = report["test"].get(name)
        if figure is None or figure["value"] is None:
            continue
        row = [words, f"{figure['value']:.3f}", f"{figure['low']:.3f} to {figure['high']:.3f}"]
        table.add_row(*row, *([_value(validation.get(name))] if validation else []))
    for baseline in report["baselines"]:
        if baseline["gain"] is None:
            continue  # the model itself, which stands above
        figure = baseline["accuracy"]
        table.add_row(
            f"accuracy of the {safe(baseline['name'])}",
            f"{figure['value']:.3f}",
            f"{figure['low']:.3f} to {figure['high']:.3f}",
            *([""] if validation else []),
            style="dim",
        )
    return table


def _value(figure: Mapping[str, Any] | None) -> str:
    return "" if not figure or figure["value"] is None else f"{figure['value']:.3f}"


def _classes(test: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("class")
    for name in ("precision", "recall", "F1", "images"):
        table.add_column(name, justify="right")
    rows = test["per_class"]
    for row in rows[:CLASS_ROWS]:
        cells = (f"{row[name]['value']:.3f}" for name in ("precision", "recall", "f1"))
        table.add_row(safe(row["class"]), *cells, str(row["support"]))
    if len(rows) > CLASS_ROWS:
        table.add_row(f"... {len(rows) - CLASS_ROWS} more in the report", "", "", "", "", style="dim")
    return table


def _print_next(run: Run) -> None:
    total = sum(run.report["seconds"].values())
    budget = run.report["budget_seconds"]
    of_budget = f" of {seconds_text(budget)}" if budget else ""
    trials = run.report["trials"]["total"]
    stdout.print(
        f"\n{seconds_text(total)}{of_budget}, {trials} trial{'s' * (trials != 1)}: "
        f"{ENDINGS.get(run.report['stop_reason'], safe(run.report['stop_reason']))}.",
        style="dim",
        highlight=False,
    )
    model = shlex.quote(str(run.model))
    lines = {
        "Report": str(run.path / "report.html"),
        "Model": str(run.model),
        "Predict": f"automl-vision predict {model} IMAGE",
        "Test on other images": f"automl-vision evaluate {model} --data OTHER",
    }
    for name, text in lines.items():
        stdout.print(f"{name}: {safe(text)}", highlight=False, soft_wrap=True)
