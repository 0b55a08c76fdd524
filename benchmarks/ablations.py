"""The command line with one part of the search taken out, for benchmarks/duel.py.

    python benchmarks/ablations.py no_portfolio search --data DIR --budget 60s

No user needs these switches, so the product has none: a part is replaced by name in the module that uses it, before
the command line is called. Everything else, the clock included, is the product's own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from unittest import mock

from automl_vision.runtime import PROCESS_START  # noqa: F401  # the budget counts from this import
from automl_vision.search import search as search_module
from automl_vision.search.scheduler import Scheduler
from replay import PruneOnly


def _without_probe() -> None:
    """No linear probe: no model within seconds, heads start at random, and nothing was timed before the first trial."""
    mock.patch.object(search_module.Search, "_probe_backbones", lambda _search: iter(())).start()


def _without_portfolio() -> None:
    """No default recipes: the sampler proposes from the first fine-tune on."""
    mock.patch.object(search_module, "portfolio", lambda *_args, **_options: ()).start()


def _prune_only() -> None:
    """Successive halving that cannot go back: what is not promoted when it reaches a rung is given up."""
    mock.patch.object(
        search_module, "Scheduler", lambda *args, **options: PruneOnly(Scheduler(*args, **options))
    ).start()


#: name -> what takes the part out.
ABLATIONS: dict[str, Callable[[], None]] = {
    "no_probe": _without_probe,
    "no_portfolio": _without_portfolio,
    "prune_only": _prune_only,
}


def main() -> None:
    """Command line: the name of an ablation, then what `automl-vision` is given."""
    ABLATIONS[sys.argv.pop(1)]()
    from automl_vision.cli.app import main as command_line

    command_line()


if __name__ == "__main__":
    main()
