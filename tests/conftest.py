"""What all tests share."""

import atexit
import os
import shutil
import tempfile

# No test writes to the history of whoever runs it, nor does a process that a test starts.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="automl-vision-state-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

# Before anything loads torch: idle OpenMP threads that spin make tests several times slower on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
