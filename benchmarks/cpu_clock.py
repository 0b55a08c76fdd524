"""Run a Python program on a clock of CPU seconds, as if the machine had two cores and nothing else to do.

    python benchmarks/cpu_clock.py -m automl_vision search --data DIR --budget 60s
    python benchmarks/cpu_clock.py benchmarks/run_rival.py train fastai --data DIR --out model.pt --budget 60

On a machine with other work a wall-clock budget measures the other work. Here `time.monotonic` tells the CPU seconds of
the main thread, or half of those of all threads where that is more: about the wall-clock seconds of two free cores. It
leaves out waiting for disks and networks, and shared caches slow everything down all the same: what is measured with it
compares programs and is no wall-clock figure. At the end the last line of stderr tells the clock.
"""

from __future__ import annotations

# What waits with a timeout takes the clock when it is imported, and must get the real one: this one stands still then.
import atexit
import concurrent.futures
import multiprocessing.connection
import queue
import runpy
import selectors
import subprocess
import sys
import threading
import time

CORES = 2
_WAITERS = (concurrent.futures, multiprocessing.connection, queue, selectors, subprocess)
_MAIN = time.pthread_getcpuclockid(threading.main_thread().ident or 0)


def seconds() -> float:
    """Seconds of two free cores since this process began."""
    return max(time.clock_gettime(_MAIN), time.process_time() / CORES)


def main() -> None:
    """Command line: what `python` would be given."""
    time.monotonic = seconds
    atexit.register(lambda: print(f"{seconds():.2f}", file=sys.stderr))  # a program may leave without coming back here
    sys.argv.pop(0)
    if sys.argv[0] == "-m":
        sys.argv.pop(0)
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
