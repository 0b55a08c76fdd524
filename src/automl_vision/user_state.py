"""Where this program keeps what is of the user and not of a run: the history, digests of weights, the key of seals."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def state_folder() -> Path:
    """`automl-vision` in $XDG_STATE_HOME, else in the user's state folder of the platform; it may not be there yet."""
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    return given / "automl-vision" if given.is_absolute() else platformdirs.user_state_path("automl-vision", False)
