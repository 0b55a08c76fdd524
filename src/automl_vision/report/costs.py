"""What the page and the terminal say of costs, from the section `costs` of report.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from automl_vision.metrics import METRICS

Report = Mapping[str, Any]

#: A 95th percentile above so many medians says that other work was in the way.
UNSTEADY = 2.0
#: How a limit is told: what it bounds, and its unit.
_LIMITS = {
    "latency_ms": ("one image takes at most", "ms (median)"),
    "size_mb": ("model.pt has at most", "MB"),
    "params_m": ("the model has at most", "million parameters"),
}


def cost_sentences(report: Report) -> list[str]:
    """What was measured and how, what was not and why, and what the scores beside it are of."""
    costs = report["costs"]
    how = (
        f"Measured here in turns, with {costs['threads']} CPU threads and in {costs['precision']}, from pixels in "
        "memory to probabilities; reading and decoding files is not in it. One image: median and 95th percentile of "
        f"{costs['passes']} passes. Throughput: batches of {costs['batch']}. Memory when asked: weights, and what a "
        f"batch took on top. Memory in training: {_whose_memory(costs)}. CPU use: CPU seconds of training by wall "
        "seconds and threads."
    )
    sentences = [how] if costs["measured"] else []
    if costs["detail"]:
        lead = "Not all of it was measured" if costs["measured"] else "Latency and throughput were not measured"
        sentences.append(f"{lead}: {costs['detail']}.")
    if any(_unsteady(found) for network in costs["networks"] for found in network["on"].values()):
        sentences.append(
            f"The machine was busy: of some networks the 95th percentile is more than {UNSTEADY:g} times the median. "
            "On a quiet machine they are faster."
        )
    return [*sentences, *_limit_sentences(costs)]


def _unsteady(timing: Mapping[str, Any]) -> bool:
    return bool(timing["p95_ms"] > UNSTEADY * timing["p50_ms"])


def front_note(report: Report) -> str:
    """What stands beside the picture of the front."""
    words = METRICS[report["objective"]].words
    return (
        f"{words[0].upper()}{words[1:]} on validation, which chose the model. The test set was looked at for the "
        "shipped model alone: no other point has a test figure. A larger dot is a larger file. Ringed: on the front of "
        "score, latency and size; automl-vision export RUN --trial N makes a model file of any of those."
    )


def cost_rows(report: Report) -> list[dict[str, Any]]:
    """The table: one row per network and device, best score first."""
    return [row for network in report["costs"]["networks"] for row in _rows(network, report["costs"])]


def shipped_line(report: Report) -> str:
    """What the shipped model costs, in one line; empty where that is not known."""
    costs = report.get("costs")
    if not costs:
        return ""
    shipped = costs["shipped"]
    timed = shipped["latency"]
    what = f"{shipped['parameters'] / 1e6:.2f} million parameters, {shipped['size_mb']:.1f} MB"
    if not timed:
        return f"The model has {what}."
    late = f", 95th percentile {timed['p95_ms']:.1f} ms" if timed["passes"] else ""
    return (
        f"The model has {what}; one image takes {timed['p50_ms']:.1f} ms{late} ({costs['device']}, "
        f"{costs['threads']} CPU threads, decoding not counted)."
    )


def _whose_memory(costs: Mapping[str, Any]) -> str:
    whole = "the most that the whole process had, its images included"
    return whole if costs["device"] == "cpu" else "the most that the device's allocator gave out"


def _limit_sentences(costs: Mapping[str, Any]) -> Iterator[str]:
    wanted = [f"{_LIMITS[name][0]} {value:g} {_LIMITS[name][1]}" for name, value in costs["limits"].items() if value]
    if not wanted:
        return
    kept = f"exceeds that: {costs['shipped']['excess']}" if costs["shipped"]["excess"] else "keeps to that"
    yield f"Limits: {'; '.join(wanted)}. The shipped model {kept}."


def _rows(network: Mapping[str, Any], costs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    shipped = {each["trial"] for each in costs["trials"] if each["shipped"]}
    marks = {"front": network["trial"] in costs["front"], "shipped": network["trial"] in shipped}
    for device, found in network["on"].items() or [("–", None)]:
        batch = found["batch"] if found else None
        yield {
            **network,
            **marks,
            "device": device,
            "one_image": f"{found['p50_ms']:.1f} / {found['p95_ms']:.1f} ms" if found else "–",
            "throughput": f"{batch['images_per_second']:,.0f}" if batch else "–",
            "asked_mb": _megabytes(batch["memory_bytes"]) if batch else "–",
            "trained_mb": _megabytes(network["training"]["peak_bytes"]),
        }


def _megabytes(count: float | None) -> str:
    return "–" if count is None else f"{count / 1e6:,.0f}\u00a0MB"
