"""What a run knows of the costs of two networks."""

from __future__ import annotations

from typing import Any


def measured_costs(**changes: Any) -> dict[str, Any]:
    """The section `costs`, as a run on a CPU writes it; keywords replace parts of it."""
    batch = {"images": 32, "images_per_second": 210.4, "memory_bytes": 150_000_000}
    timing = {"p50_ms": 12.34, "p95_ms": 15.0, "passes": 30}
    common = {"resolution": 96, "head": "linear", "gmacs": 0.07, "parameters": 3_380_000, "size_mb": 13.8}
    trained = {"peak_bytes": 1_400_000_000, "cpu_utilisation": 0.85}
    point = {"kind": "finetune", "resolution": 96, "size_mb": 13.8, "shipped": False}
    known: dict[str, Any] = {
        "measured": True,
        "detail": "",
        "device": "cpu",
        "precision": "float32",
        "threads": 2,
        "passes": 30,
        "batch": 32,
        "limits": {"latency_ms": None, "size_mb": None, "params_m": None},
        "shipped": {
            "networks": 1, "passes_per_image": 1, "parameters": 3_380_000, "gmacs": 0.07, "size_mb": 13.8,
            "latency": timing, "excess": "",
        },
        "networks": [
            {**common, "backbone": "net_a", "trial": 1, "score": 0.8, "training": trained,
             "on": {"cpu": {**timing, "batch": batch}}},
            {**common, "backbone": "net_b", "trial": 2, "score": 0.7, "on": {},
             "training": {"peak_bytes": None, "cpu_utilisation": None}},
        ],
        "front": [1],
        "trials": [
            {**point, "trial": 0, "backbone": "net_a", "score": 0.6, "latency_ms": 12.34, "front": False},
            {**point, "trial": 1, "backbone": "net_a", "score": 0.8, "latency_ms": 12.34, "front": True,
             "shipped": True},
        ],
    }  # fmt: skip
    return known | changes
