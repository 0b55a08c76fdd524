"""Kill one of two processes that train a model together, at random steps: does it end as if nothing had happened?

    python benchmarks/cluster/kill_ranks.py --data examples/fashion --kills 10

`search --ddp 2` of one recipe with dropout, mixing and a running average, once undisturbed and then with `kill -9` of
the first or the second rank at random moments of the training, up to three times a run: torchrun starts both again.
Compared are the records of all trials and the weights that were kept, to the last bit. Prints one line; exit code 1
where a run ended otherwise, or did not end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cluster.runs import outcome, ranks_of, records, start, this_program
from stages import ROOT, machine

#: Kills of one run: torchrun starts all ranks again so often.
KILLS = 3
RECIPE = "--trials 1 --epochs 20 --batch-size 8 --mix mixup --drop-path 0.2 --ema --refit off"
_LOOK = 0.05


@dataclass
class Tally:
    """What was found.

    Attributes:
        runs: that were disturbed and came to their end.
        kills: of a rank.
        of_first: of these, kills of the first rank, which writes the checkpoints.
        back: seconds from each kill to the next step that both ranks had made.
        faults: what is not as it should be.
    """

    runs: int = 0
    kills: int = 0
    of_first: int = 0
    back: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = "the same weights and records as undisturbed" if not self.faults else "; ".join(self.faults)
        took = f"{statistics.median(self.back):.0f} s to the next epoch (median)" if self.back else "none came back"
        return f"{self.kills} kills ({self.of_first} of the first rank) in {self.runs} runs, {took}: {verdict}"


def disturb(search: Sequence[str], out: Path, kills: int, chance: random.Random, longest: float, tally: Tally) -> None:
    """One run, in which ranks are killed so often; it comes to its end, or that is a fault."""
    running = start([*search, "--out", str(out)], out.with_suffix(".log"))
    try:
        for _ in range(kills):
            done = _epochs(out)
            if not _wait(running, lambda done=done: _epochs(out) > done or (not done and _has_begun(out))):
                break
            time.sleep(chance.uniform(0, longest))
            _kill_one(out, chance, tally)
        code = running.wait(timeout=900)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    tally.runs += 1
    if code:
        tally.faults.append(f"a run ended with {code}: {out.with_suffix('.log').read_text()[-500:]}")


def _kill_one(out: Path, chance: random.Random, tally: Tally) -> None:
    before = time.monotonic()
    ranks = ranks_of(out)
    if len(ranks) < 2 or (out / "report.json").exists():
        return
    rank = chance.choice(sorted(ranks))
    epochs = _epochs(out)
    try:
        os.kill(ranks[rank], signal.SIGKILL)
    except ProcessLookupError:
        return  # the run came to its end
    tally.kills += 1
    tally.of_first += rank == 0
    print(f"kill {tally.kills}: rank {rank} after {epochs} epochs", file=sys.stderr, flush=True)
    ends = before + 300
    while time.monotonic() < ends and _epochs(out) <= epochs and not (out / "report.json").exists():
        time.sleep(_LOOK)
    tally.back.append(time.monotonic() - before)


def _wait(running: subprocess.Popen[bytes], happened: Any) -> bool:
    while running.poll() is None:
        if happened():
            return True
        time.sleep(_LOOK)
    return False


def _epochs(out: Path) -> int:
    """Epochs of fine-tunes that are recorded."""
    return sum(len(record["epochs"]) for record in records(out).values())


def _has_begun(out: Path) -> bool:
    """Whether a probe is done, so that the fine-tune follows."""
    return any(record["state"] == "complete" for record in records(out).values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "examples" / "fashion")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--longest", type=float, default=5.0, help="seconds after an epoch until a kill, at most")
    parser.add_argument("--options", default=RECIPE, help="options for search, in one text")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    tally, chance = Tally(), random.Random(options.seed)
    scratch = Path(tempfile.mkdtemp())
    search = [*this_program(), "search", "--data", str(options.data), "--ddp", "2", "--quiet", "--offline"]
    search += ["--cache-dir", str(scratch / "cache"), *shlex.split(options.options)]
    disturb(search, scratch / "undisturbed", 0, chance, 0.0, Tally())
    expected = outcome(scratch / "undisturbed")
    while tally.kills < options.kills and not tally.faults and tally.runs < 2 * options.kills:
        out = scratch / f"run{tally.runs}"
        disturb(search, out, min(KILLS, options.kills - tally.kills), chance, options.longest, tally)
        if not tally.faults and outcome(out) != expected:
            tally.faults.append(f"another outcome in {out}")
    print(tally)
    if options.json:
        content = {"machine": machine(), "options": options.options, **asdict(tally)}
        options.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    if not tally.faults:
        shutil.rmtree(scratch)
    return int(bool(tally.faults))


if __name__ == "__main__":
    sys.exit(main())
