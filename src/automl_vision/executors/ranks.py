"""One trial at a time, by several processes that train one model together."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

from automl_vision.executors.executor import Job, Progress
from automl_vision.executors.local import LocalExecutor
from automl_vision.executors.workplace import Values, Workplace
from automl_vision.training.ranks import Ranks

#: Takes part in a job that the first rank does.
Follow = Callable[[Values], None]


class RanksExecutor(LocalExecutor[Job, Progress]):
    """The executor of the first rank: it does each job in this very process, and has the others take part.

    They keep their work open when this is closed, for what comes after the search.

    Args:
        workplace: `opening` is called with `folder` and the ranks, and gives what takes part in jobs.
        ranks: of whom this is the first.
    """

    def __init__(self, workplace: Workplace[Job, Progress], ranks: Ranks) -> None:
        here, encode = workplace.here, workplace.encode
        if here is None:
            raise ValueError("the first rank works in this very process, got workplace.here=None")

        def together(job: Job) -> Iterator[Progress]:
            ranks.say({"do": "job", "job": encode(job)})
            yield from here(job)

        super().__init__(together)
        places = {"folder": workplace.folder, "logs": str(workplace.logs)}
        ranks.say({"do": "open", "opening": workplace.opening, **places})


def follow(ranks: Ranks, opened: Callable[[str], None]) -> None:
    """Take part in all that the first rank does, until it has come to its end.

    Args:
        ranks: of whom this is another one than the first.
        opened: called with the folder for what is printed, when that is known.

    Raises:
        RankLost: the others are gone.
        What the work raises.
    """
    work: Follow | None = None
    while (order := ranks.hear())["do"] != "end":
        if order["do"] == "open":
            opened(order["logs"])
            work = _open(order["opening"], order["folder"], ranks)
        elif order["do"] == "job" and work is not None:
            work(order["job"])
    ranks.heard_the_end()


def end(ranks: Ranks) -> None:
    """The first rank has come to its end; so do the others."""
    ranks.say({"do": "end"})
    ranks.wait_until_heard()


def _open(opening: str, folder: str, ranks: Ranks) -> Follow:
    module, _, name = opening.partition(":")
    work: Follow = getattr(importlib.import_module(module), name)(folder, ranks)
    return work
