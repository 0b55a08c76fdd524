"""What a pipeline tells its listener while it works; showing it is the listener's affair."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from automl_vision.search.trial import Trial


#: How the names of threads begin that tell trackers of a run: nothing of ours waits for them once it has ended.
TRACKER_THREAD = "track-"

#: Stages in their order, and what a user is told about them.
STAGES: dict[str, str] = {
    "cluster": "Joining the cluster",
    "read": "Reading the list of images",
    "plan": "Looking at the machine and the budget",
    "decode": "Decoding every image once",
    "compare": "Comparing images that look alike",
    "audit": "Checking images, tracing copies, dealing the sets",
    "resize": "Comparing whole images with their middles",
    "search": "Searching",
    "costs": "Measuring what the networks cost",
    "finish": "Finishing the best model",
    "impact": "Measuring what a naive split would have pretended",
    "checks": "Looking for wrong labels and shortcuts",
    "test": "Opening the test set",
    "report": "Writing the report",
    "page": "Writing the page",
    "shard": "Writing shards",
    "verify": "Reading shards",
}


@dataclass(frozen=True)
class StageStarted:
    """A stage of the pipeline begins.

    Attributes:
        name: a key of `STAGES`.
        detail: what exactly is being done, for people; may be empty.
        seconds_left: of the budget; infinity where there is none.
        budget: seconds in all; infinity where there is none.
    """

    name: str
    detail: str = ""

    def __post_init__(self) -> None:
        if self.name not in STAGES:
            raise ValueError(f"unknown stage, got {self.name!r}; known: {', '.join(STAGES)}")

    seconds_left: float = math.inf
    budget: float = math.inf


@dataclass(frozen=True)
class Progress:
    """`done` of `total` pieces of the running stage are done."""

    done: int
    total: int


@dataclass(frozen=True)
class TrialChanged:
    """A trial started, advanced or ended.

    Attributes:
        trial: as it is now.
        best: the best trial so far, None before the first validation.
        seconds_left: of the budget; infinity where only the number of trials ends the search.
    """

    trial: Trial
    best: Trial | None
    seconds_left: float


@dataclass(frozen=True)
class Note:
    """One sentence that the user should see."""

    text: str
    level: Literal["info", "warning"] = "info"


Event = StageStarted | Progress | TrialChanged | Note
Tell = Callable[[Event], None]


def silent(event: Event) -> None:
    """A listener that shows nothing."""
