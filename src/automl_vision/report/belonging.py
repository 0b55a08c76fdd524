"""Which run, report and model file belong together; what each says of it may be of foreign origin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def run_is_of(about: Mapping[str, Any], report: Mapping[str, Any] | None, provenance: Mapping[str, Any]) -> bool:
    """Whether a model was made from the data of a run.

    Args:
        about: run.json.
        report: report.json, None where there is none. Models of earlier versions name the images that were left where
            a short budget drew some, or small classes were dropped; so does the report of their run.
        provenance: of the model file.
    """
    made_from = provenance.get("data_fingerprint")
    return isinstance(made_from, str) and made_from in (about.get("fingerprint"), _data_of(report))


def report_is_of(report: Mapping[str, Any], provenance: Mapping[str, Any]) -> bool:
    """Whether a report is of the model: the same data, and to the last bit the figures that the file has."""
    kept, test = provenance.get("test"), report.get("test")
    if not (isinstance(kept, Mapping) and isinstance(test, Mapping) and isinstance(report.get("environment"), Mapping)):
        return False
    same = all(kept.get(name) == test.get(name) for name in ("n", "accuracy", "macro_f1"))
    return same and _data_of(report) == provenance.get("data_fingerprint")


def _data_of(report: Mapping[str, Any] | None) -> object:
    made = report.get("environment") if report is not None else None
    return made.get("data_fingerprint") if isinstance(made, Mapping) else None
