"""What all tests share."""

import os

# Before anything loads torch: idle OpenMP threads that spin make tests several times slower on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
