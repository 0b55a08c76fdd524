"""What all tests share."""

import atexit
import os
import shutil
import tempfile

from hypothesis import settings

# No test writes to the history of whoever runs it, nor does a process that a test starts.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="automl-vision-state-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

# Before anything loads torch: idle OpenMP threads that spin make tests several times slower on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Tests that run side by side share the cores: one thread each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # They are told the size of a terminal that is not there.
    os.environ.pop("COLUMNS", None)
    os.environ.pop("LINES", None)

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
